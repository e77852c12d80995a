#!/usr/bin/env python3
"""package.py KIND VERSION DIST TARGET...   makes archives, wheels, npm packages, the formula or the chart.
package.py names KIND VERSION TARGET...   prints the names of these files.
package.py binstall VERSION TARGET   prints where `cargo binstall` would look for a binary: the URL of its archive, and
the path in it. REPO stands for the address of the repository.

Each archive is written member by member with fixed owners, modes and times, so that equal
input gives equal bytes. Called by package.sh.
"""
import base64
import csv
import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import sys
import tarfile
import time
import zipfile

ROOT = pathlib.Path(__file__).parent.parent
EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
REPOSITORY = os.environ.get("REPOSITORY_URL", "")
NAME = "multilangd"
EXECUTABLE, PLAIN = 0o755, 0o644

# The static Linux binary needs no C library, so one wheel serves every glibc and every musl.
WHEEL_TAGS = {
    "x86_64-unknown-linux-musl": "manylinux_2_17_x86_64.manylinux2014_x86_64.musllinux_1_1_x86_64",
    "aarch64-unknown-linux-musl": "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64",
    "x86_64-apple-darwin": "macosx_10_12_x86_64",
    "aarch64-apple-darwin": "macosx_11_0_arm64",
}
NPM_PLATFORMS = {
    "x86_64-unknown-linux-musl": ("linux", "x64"),
    "aarch64-unknown-linux-musl": ("linux", "arm64"),
    "x86_64-apple-darwin": ("darwin", "x64"),
    "aarch64-apple-darwin": ("darwin", "arm64"),
}


def description():
    manifest = (ROOT / "Cargo.toml").read_text()
    return re.search(r'^description = "(.*)"$', manifest, re.MULTILINE).group(1)


def readme():
    """README.md without links to pages that are not in the package."""
    text = (ROOT / "README.md").read_text()
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]+\)", r"\1", text)


def write_tar(path, members):
    """Members are (name, content, mode)."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content, mode in sorted(members):
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(content), mode, EPOCH
            tar.addfile(member, io.BytesIO(content))
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=EPOCH) as packed:
        packed.write(raw.getvalue())
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")


def binary(dist, target):
    return (dist / "bin" / target / NAME).read_bytes()


def archive_name(version, target):
    return f"{NAME}-{version}-{target}.tar.gz"


def wheel_name(version, target):
    return f"{NAME}-{version}-py3-none-{WHEEL_TAGS[target]}.whl"


def npm_name(version, target):
    return f"{NAME}-{'-'.join(NPM_PLATFORMS[target])}-{version}.tgz"


def chart_name(version):
    # Not the name that helm would choose: the npm package has it.
    return f"{NAME}-chart-{version}.tgz"


def names(kind, version, targets):
    """The files of a kind in the order in which they are published."""
    each = {"archive": archive_name, "wheel": wheel_name, "npm": npm_name}
    found = [each[kind](version, target) for target in targets] if kind in each else []
    last = {"npm": [f"{NAME}-{version}.tgz"], "chart": [chart_name(version)]}
    return found + last.get(kind, [])


def binstall(version, target):
    """The templates of Cargo.toml, filled as cargo binstall does."""
    manifest = (ROOT / "Cargo.toml").read_text()
    table = re.search(r"^\[package\.metadata\.binstall\]\n((?:.+\n)+)", manifest, re.MULTILINE).group(1)
    keys = dict(re.findall(r'^([a-z-]+) = "(.*)"$', table, re.MULTILINE))
    values = {
        "repo": "REPO",
        "name": NAME,
        "bin": NAME,
        "version": version,
        "target": target,
        "archive-suffix": {"tgz": ".tar.gz"}[keys["pkg-fmt"]],
        "binary-ext": "",
    }
    fill = lambda template: re.sub(r"\{ *([a-z-]+) *\}", lambda found: values[found.group(1)], template)
    return fill(keys["pkg-url"]), fill(keys["bin-dir"])


def archives(version, dist, targets):
    texts = dist / "texts"
    for target in targets:
        folder = f"{NAME}-{version}-{target}"
        members = [
            (f"{folder}/{NAME}", binary(dist, target), EXECUTABLE),
            (f"{folder}/man/{NAME}.1", (texts / f"{NAME}.1").read_bytes(), PLAIN),
            (f"{folder}/completions/{NAME}.bash", (texts / f"{NAME}.bash").read_bytes(), PLAIN),
            (f"{folder}/completions/_{NAME}", (texts / f"{NAME}.zsh").read_bytes(), PLAIN),
            (f"{folder}/completions/{NAME}.fish", (texts / f"{NAME}.fish").read_bytes(), PLAIN),
            (f"{folder}/LICENSE", (ROOT / "LICENSE").read_bytes(), PLAIN),
            (f"{folder}/README.md", readme().encode(), PLAIN),
        ]
        write_tar(dist / archive_name(version, target), members)


def wheels(version, dist, targets):
    metadata = [
        "Metadata-Version: 2.4",
        f"Name: {NAME}",
        f"Version: {version}",
        f"Summary: {description()}",
        "Keywords: kinesis,kcl,multilangdaemon,aws,streaming",
        "License-Expression: Apache-2.0",
        "License-File: LICENSE",
        "Classifier: Development Status :: 4 - Beta",
        "Classifier: Environment :: No Input/Output (Daemon)",
        "Classifier: Operating System :: MacOS",
        "Classifier: Operating System :: POSIX :: Linux",
        "Classifier: Programming Language :: Rust",
        "Classifier: Topic :: System :: Distributed Computing",
        "Requires-Python: >=3.8",
        "Description-Content-Type: text/markdown",
    ]
    if REPOSITORY:
        metadata.append(f"Project-URL: Repository, {REPOSITORY}")
    metadata = "\n".join(metadata) + "\n\n" + readme()
    for target in targets:
        tags = WHEEL_TAGS[target]
        info = f"{NAME}-{version}.dist-info"
        wheel = ["Wheel-Version: 1.0", "Generator: packaging/package.py", "Root-Is-Purelib: false"]
        wheel += [f"Tag: py3-none-{tag}" for tag in tags.split(".")]
        members = [
            (f"{NAME}-{version}.data/scripts/{NAME}", binary(dist, target), EXECUTABLE),
            (f"{info}/METADATA", metadata.encode(), PLAIN),
            (f"{info}/WHEEL", ("\n".join(wheel) + "\n").encode(), PLAIN),
            (f"{info}/licenses/LICENSE", (ROOT / "LICENSE").read_bytes(), PLAIN),
        ]
        record = io.StringIO()
        rows = csv.writer(record, lineterminator="\n")
        for name, content, _ in members:
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            rows.writerow([name, f"sha256={digest}", len(content)])
        rows.writerow([f"{info}/RECORD", "", ""])
        members.append((f"{info}/RECORD", record.getvalue().encode(), PLAIN))

        path = dist / wheel_name(version, target)
        # A zip file has no time before 1980.
        when = time.gmtime(max(EPOCH, 315532800))[:6]
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
            for name, content, mode in members:
                member = zipfile.ZipInfo(name, when)
                member.compress_type = zipfile.ZIP_DEFLATED
                member.external_attr = (0o100000 | mode) << 16
                member.create_system = 3  # Unix: the mode is valid
                packed.writestr(member, content)
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")


def npm(version, dist, targets):
    common = {"version": version, "license": "Apache-2.0"}
    if REPOSITORY:
        common["repository"] = {"type": "git", "url": f"git+{REPOSITORY}.git"}
    licence = (ROOT / "LICENSE").read_bytes()
    for target in targets:
        system, cpu = NPM_PLATFORMS[target]
        name = f"{NAME}-{system}-{cpu}"
        manifest = {
            "name": name,
            "description": f"The {system} {cpu} binary of {NAME}; install {NAME} instead",
            **common,
            "os": [system],
            "cpu": [cpu],
            "preferUnplugged": True,
        }
        members = [
            ("package/package.json", json.dumps(manifest, indent=2).encode() + b"\n", PLAIN),
            (f"package/bin/{NAME}", binary(dist, target), EXECUTABLE),
            ("package/LICENSE", licence, PLAIN),
            ("package/README.md", f"The {system} {cpu} binary of the package `{NAME}`.\n".encode(), PLAIN),
        ]
        write_tar(dist / npm_name(version, target), members)
    # All platforms stand here, also those that another machine builds: npm skips one that is missing.
    platforms = {f"{NAME}-{system}-{cpu}": version for system, cpu in NPM_PLATFORMS.values()}
    manifest = {
        "name": NAME,
        "description": description(),
        **common,
        "keywords": ["kinesis", "kcl", "multilangdaemon", "aws", "stream"],
        "bin": {NAME: f"bin/{NAME}"},
        "main": "lib/binary.js",
        "scripts": {"postinstall": "node lib/install.js"},
        "engines": {"node": ">=14"},
        "os": ["linux", "darwin"],
        "cpu": ["x64", "arm64"],
        "optionalDependencies": platforms,
    }
    source = ROOT / "packaging" / "npm"
    members = [
        ("package/package.json", json.dumps(manifest, indent=2).encode() + b"\n", PLAIN),
        (f"package/bin/{NAME}", (source / "launcher.js").read_bytes(), EXECUTABLE),
        ("package/lib/binary.js", (source / "binary.js").read_bytes(), PLAIN),
        ("package/lib/install.js", (source / "install.js").read_bytes(), PLAIN),
        ("package/LICENSE", licence, PLAIN),
        ("package/README.md", readme().encode(), PLAIN),
    ]
    write_tar(dist / f"{NAME}-{version}.tgz", members)


def chart(version, dist, _targets):
    source = ROOT / "packaging" / "chart"
    members = []
    for path in source.rglob("*"):
        if path.is_file():
            text = path.read_text()
            if path.name == "Chart.yaml":
                text = re.sub("^(version|appVersion): .*$", rf"\1: {version}", text, flags=re.MULTILINE)
            members.append((f"{NAME}/{path.relative_to(source)}", text.encode(), PLAIN))
    write_tar(dist / chart_name(version), members)


def brew(version, dist, targets):
    base = os.environ.get("RELEASE_URL", "") or f"file://{dist.resolve()}"
    cpus = {"x86_64": "intel", "aarch64": "arm"}
    lines = [
        "class Multilangd < Formula",
        f'  desc "{description().split(":")[0].removeprefix("A ")}"',
        *([f'  homepage "{REPOSITORY}"'] if REPOSITORY else []),
        f'  version "{version}"',
        '  license "Apache-2.0"',
        "",
    ]
    for system, ending in (("macos", "-apple-darwin"), ("linux", "-linux-musl")):
        found = sorted(target for target in targets if target.endswith(ending))
        if not found:
            continue
        lines.append(f"  on_{system} do")
        for target in found:
            name = archive_name(version, target)
            if not (dist / name).exists():
                sys.exit(f"error: {dist / name} is missing (run packaging/package.sh archive first)")
            digest = hashlib.sha256((dist / name).read_bytes()).hexdigest()
            lines += [
                f"    on_{cpus[target.split('-')[0]]} do",
                f'      url "{base}/{name}"',
                f'      sha256 "{digest}"',
                "    end",
            ]
        lines += ["  end", ""]
    lines += [
        "  def install",
        f'    bin.install "{NAME}"',
        f'    man1.install "man/{NAME}.1"',
        f'    bash_completion.install "completions/{NAME}.bash" => "{NAME}"',
        f'    zsh_completion.install "completions/_{NAME}"',
        f'    fish_completion.install "completions/{NAME}.fish"',
        "  end",
        "",
        "  test do",
        f'    assert_match version.to_s, shell_output("#{{bin}}/{NAME} --version")',
        "  end",
        "end",
    ]
    path = dist / f"{NAME}.rb"
    path.write_text("\n".join(lines) + "\n")
    print(path.name)


def main():
    if sys.argv[1] == "names":
        kind, version, *targets = sys.argv[2:]
        print(*names(kind, version, targets), sep="\n")
        return
    if sys.argv[1] == "binstall":
        print(*binstall(*sys.argv[2:]), sep="\n")
        return
    kind, version, dist, *targets = sys.argv[1:]
    kinds = {"archive": archives, "wheel": wheels, "npm": npm, "brew": brew, "chart": chart}
    kinds[kind](version, pathlib.Path(dist), targets)


main()
