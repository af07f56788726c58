import org.jetbrains.kotlin.gradle.dsl.ExplicitApiMode
import org.jetbrains.kotlin.gradle.dsl.JvmTarget
import org.jetbrains.kotlin.gradle.dsl.KotlinVersion

plugins {
    alias(libs.plugins.android.library)
    `maven-publish`
}

// The version of the whole project, which Cargo knows.
val workspaceVersion = rootDir.resolve("../Cargo.toml").readLines()
    .dropWhile { it != "[workspace.package]" }
    .first { it.startsWith("version = ") }
    .substringAfter('"').substringBefore('"')

group = "org.vmesskit"
version = workspaceVersion

android {
    namespace = "org.vmesskit.android"
    compileSdk = libs.versions.compile.sdk.get().toInt()

    defaultConfig {
        minSdk = libs.versions.min.sdk.get().toInt()
        consumerProguardFiles("consumer-rules.pro")
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }

    sourceSets {
        named("main") {
            // Beside src/main: the generated bindings, and what names no Android type.
            kotlin.srcDirs("../../bindings/kotlin", "src/core/kotlin")
            // Filled by scripts/build-android: arm64-v8a, armeabi-v7a, x86_64, x86, with pages of 16 KB.
            jniLibs.srcDirs("../../target/android/jni")
        }
    }

    publishing {
        singleVariant("release") {
            withSourcesJar()
        }
    }
}

kotlin {
    // The generated bindings do not know the explicit API mode, and are told to be silent; all warnings are errors.
    explicitApi = ExplicitApiMode.Warning
    compilerOptions {
        jvmTarget = JvmTarget.JVM_17
        languageVersion = KotlinVersion.fromVersion(libs.versions.kotlin.language.get())
        apiVersion = KotlinVersion.fromVersion(libs.versions.kotlin.language.get())
        allWarningsAsErrors = true
    }
}

dependencies {
    api(libs.coroutines)
    implementation(libs.jna) {
        artifact { type = "aar" }
    }
    compileOnly(libs.annotation)
}

// An archive without its libraries would fail on the first phone.
val requireLibraries = tasks.register("requireLibraries") {
    val folder = rootDir.resolve("../target/android/jni")
    doLast {
        for (abi in listOf("arm64-v8a", "armeabi-v7a", "x86_64", "x86")) {
            val library = folder.resolve("$abi/libvmesskit_uniffi.so")
            check(library.isFile) { "$library is missing: run scripts/build-android" }
        }
    }
}
tasks.matching { it.name == "bundleReleaseAar" }.configureEach { dependsOn(requireLibraries) }

publishing {
    publications {
        register<MavenPublication>("release") {
            artifactId = "vmesskit-android"
            afterEvaluate { from(components["release"]) }
            pom {
                name = "VMessKit for Android"
                description = "The VMess tunnel core that VPN apps embed: the Android library"
                inceptionYear = "2026"
                licenses {
                    license {
                        name = "MIT"
                        distribution = "repo"
                    }
                }
            }
        }
    }
    repositories {
        // A folder that a release uploads as it is.
        maven {
            name = "local"
            url = uri(rootDir.resolve("../target/android/maven"))
        }
    }
}
