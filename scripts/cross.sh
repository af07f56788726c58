# Shared by the scripts that build for systems whose SDK is not here: the source of Rust's standard library, the headers of
# the targets' C libraries, and the compilers that know them. Sourced after lib.sh, never run.
# shellcheck shell=bash

CROSS=$ROOT/.cache/cross
ZIGLANG=0.17.1
LLVM=19

# The standard library of this very compiler: rustup's component if it is there, else Debian's package, fetched once. Sets
# what Cargo's build-std needs.
need_rust_src() {
    local version library
    version=$(rustc --version | cut -d ' ' -f 2)
    library=$(rustc --print sysroot)/lib/rustlib/src/rust/library
    if [[ ! -d $library ]]; then
        library=$CROSS/rust-src-$version/usr/src/rustc-$version/library
        [[ -d $library ]] || fetch_rust_src "$version"
        [[ -d $library ]] || die "the source of Rust's standard library is missing: rustup component add rust-src"
        export __CARGO_TESTS_ONLY_SRC_ROOT=$library
    fi
    # What build-std asks for; the compiler itself stays as it is.
    export RUSTC_BOOTSTRAP=1
}

# Debian's package of the source, from the mirror that this machine uses.
fetch_rust_src() {
    local version=$1 mirror work full
    local missing="the source of Rust $version's standard library is missing: rustup component add rust-src"
    command -v apt-get >/dev/null || die "$missing"
    # shellcheck disable=SC2016
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | grep -v security | head -n 1)
    work=$CROSS/apt
    mkdir -p "$work/lists/partial" "$work/parts"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
        "${mirror:-http://deb.debian.org/debian}" trixie-backports >"$work/sources.list"
    local options=(-o "Dir::Etc::sourcelist=$work/sources.list" -o "Dir::Etc::sourceparts=$work/parts"
        -o "Dir::State::lists=$work/lists" -o APT::Sandbox::User=root)
    say "fetching the source of Rust $version"
    apt-get -qq "${options[@]}" update || die "$missing (Debian's mirror does not answer)"
    full=$(apt-cache "${options[@]}" madison rust-src | awk -v want="$version+" 'index($3, want) == 1 { print $3; exit }')
    [[ -n $full ]] || die "$missing (Debian has another version)"
    (cd "$work" && apt-get -qq "${options[@]}" download "rust-src=$full") || die "$missing (it could not be fetched)"
    rm -rf "$CROSS/rust-src-$version.new"
    dpkg-deb -x "$work"/rust-src_*.deb "$CROSS/rust-src-$version.new"
    mv "$CROSS/rust-src-$version.new" "$CROSS/rust-src-$version"
    rm -rf "$work"
}

# The headers of musl and of Darwin, which a wheel of PyPI carries; fetched once. Sets HEADERS.
need_headers() {
    local wheel=$CROSS/ziglang-$ZIGLANG
    HEADERS=$wheel/ziglang/lib/libc/include
    [[ ! -d $HEADERS ]] || return 0
    need pip3=python3-pip unzip=unzip
    say "fetching headers"
    mkdir -p "$wheel.new"
    pip3 download --quiet --no-deps --disable-pip-version-check --dest "$wheel.new" "ziglang==$ZIGLANG" ||
        die "PyPI's ziglang $ZIGLANG could not be fetched: is there a network?"
    unzip -q -o "$wheel.new"/*.whl 'ziglang/lib/libc/include/*' -d "$wheel.new"
    rm -f "$wheel.new"/*.whl
    rm -rf "$wheel"
    mv "$wheel.new" "$wheel"
}

# A compiler for the C and assembly in dependencies.
need_clang() {
    need "clang-$LLVM=clang-$LLVM" "llvm-ar-$LLVM=llvm-$LLVM"
}

# cross_c TRIPLE FLAGS...: has dependencies' C compiled for a target, and leaves the host's alone.
cross_c() {
    local lower=${1//-/_}
    export "CC_$lower=clang-$LLVM" "AR_$lower=llvm-ar-$LLVM" "CFLAGS_$lower=${*:2}"
}

# android_c TRIPLE: the same for Android, with musl's headers in the place of bionic's.
android_c() {
    local name
    case $1 in
    aarch64-*) name=aarch64 ;;
    armv7-*) name=arm ;;
    x86_64-*) name=x86_64 ;;
    i686-*) name=x86 ;;
    *) die "there is no Android on $1" ;;
    esac
    cross_c "$1" -nostdlibinc -isystem "$HEADERS/$name-linux-musl" -isystem "$HEADERS/generic-musl" \
        -isystem "$HEADERS/$name-linux-any" -isystem "$HEADERS/any-linux-any"
}
