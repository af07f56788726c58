"""Checks the sample's Xcode project without Xcode: that every list is one, and that what must agree does."""

import plistlib
import re
import sys
from pathlib import Path

import yaml

IOS = Path(__file__).resolve().parent.parent
ROOT = IOS.parent
SAMPLE = IOS / "sample"

# What Xcode itself puts in for a variable.
XCODE = {"EXECUTABLE_NAME", "PRODUCT_NAME", "PRODUCT_MODULE_NAME", "AppIdentifierPrefix"}
PROVIDER = "com.apple.developer.networking.networkextension"
GROUPS = "keychain-access-groups"

faults = []


def expect(holds, fault):
    if not holds:
        faults.append(fault)


def texts(value):
    """Every text in a property list."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def plist(path):
    try:
        return plistlib.loads(path.read_bytes())
    except Exception as error:  # whatever it is, it is no property list
        faults.append(f"{path.relative_to(ROOT)}: {error}")
        return {}


project = yaml.safe_load((SAMPLE / "project.yml").read_text())
package = (ROOT / "Package.swift").read_text()
common = project["settings"]["base"]
targets = project["targets"]
settings = {name: {**common, **target["settings"]["base"]} for name, target in targets.items()}
infos = {name: plist(SAMPLE / of["INFOPLIST_FILE"]) for name, of in settings.items()}
rights = {name: plist(SAMPLE / of["CODE_SIGN_ENTITLEMENTS"]) for name, of in settings.items()}
kinds = {target["type"]: name for name, target in targets.items()}
app, extension = kinds["application"], kinds["app-extension"]

for path in [*IOS.rglob("*.plist"), *IOS.rglob("*.entitlements"), *IOS.rglob("*.xcprivacy")]:
    plist(path)

for name, target in targets.items():
    for source in target["sources"]:
        expect(list((SAMPLE / source).rglob("*.swift")), f"{name}: there are no sources in {source}")
    for needed in target["dependencies"]:
        if "target" in needed:
            expect(needed["target"] in targets, f"{name}: there is no target {needed['target']}")
        else:
            path = SAMPLE / project["packages"][needed["package"]]["path"]
            expect((path / "Package.swift").is_file(), f"{name}: there is no package in {path}")
            expect(f'.library(name: "{needed["product"]}"' in package, f"{name}: no product {needed['product']}")
    for text in texts(infos[name]):
        for variable in re.findall(r"\$\((\w+)\)", text):
            expect(variable in XCODE | settings[name].keys(), f"{name}: nobody says what {variable} is")
    expect(infos[name].get("CFBundleIdentifier") == "$(PRODUCT_BUNDLE_IDENTIFIER)", f"{name}: an identifier of its own")
    expect(rights[name].get(PROVIDER) == ["packet-tunnel-provider"], f"{name}: it may have no packet tunnel")
    groups = rights[name].get(GROUPS, [])
    # The configuration is left in the first group; with one, both ends mean the same without naming it.
    expect(len(groups) == 1 and groups[0].startswith("$(AppIdentifierPrefix)"), f"{name}: one keychain group, not {groups}")

expect(rights[app].get(GROUPS) == rights[extension].get(GROUPS), "the app and its extension share no keychain group")
expect({"target": extension} in targets[app]["dependencies"], "the app does not carry its extension")
expect(infos[app].get("CFBundlePackageType") == "APPL", f"{app}: no app")
expect(infos[extension].get("CFBundlePackageType") == "XPC!", f"{extension}: no extension")

suffix = settings[extension]["PRODUCT_BUNDLE_IDENTIFIER"].removeprefix(settings[app]["PRODUCT_BUNDLE_IDENTIFIER"])
expect(re.fullmatch(r"\.\w+", suffix), f"the extension's identifier is not the app's and one word more: {suffix}")
expect(f'\\(app){suffix}"' in (SAMPLE / "App/VpnModel.swift").read_text(), f"the app looks for another extension than {suffix}")

point = infos[extension].get("NSExtension", {})
expect(point.get("NSExtensionPointIdentifier") == "com.apple.networkextension.packet-tunnel", f"{extension}: no tunnel")
principal = point.get("NSExtensionPrincipalClass", "").removeprefix("$(PRODUCT_MODULE_NAME).")
code = "".join(path.read_text() for path in (SAMPLE / "Tunnel").glob("*.swift"))
expect(f"class {principal}: VMessPacketTunnelProvider" in code, f"{extension}: there is no class {principal}")

oldest = str(project["options"]["deploymentTarget"]["iOS"])
expect(f".iOS(.v{oldest.removesuffix('.0')})" in package, f"the package is not for iOS {oldest}")
expect(common["SWIFT_VERSION"] == "6.0", "the sample is not in Swift 6 mode")

for fault in faults:
    print(fault, file=sys.stderr)
sys.exit(1 if faults else print(f"{app}, {extension}: project, property lists and entitlements agree") or 0)
