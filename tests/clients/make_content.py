"""Fills a folder with package indexes and a git repository: FOLDER URL."""
import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile

folder, url = sys.argv[1:]
files = os.path.join(folder, "files")


def write(path, data):
    path = os.path.join(files, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as out:
        out.write(data.encode() if isinstance(data, str) else data)


def tar(entries):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, data in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data.encode()))
    return packed.getvalue()


def pypi():
    """PEP 427 and PEP 503."""
    packed = io.BytesIO()
    info = "probe_pkg-1.0.dist-info/"
    with zipfile.ZipFile(packed, "w") as wheel:
        wheel.writestr("probe_pkg.py", "text = 'hello from the index'\n")
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: probe-pkg\nVersion: 1.0\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        names = ["probe_pkg.py", info + "METADATA", info + "WHEEL", info + "RECORD"]
        wheel.writestr(info + "RECORD", "".join(f"{name},,\n" for name in names))
    name = "probe_pkg-1.0-py3-none-any.whl"
    write("wheels/" + name, packed.getvalue())
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    link = f'<a href="{url}/files/wheels/{name}#sha256={digest}">{name}</a>'
    write("simple/probe-pkg/index.html", f"<!DOCTYPE html><html><body>{link}</body></html>")


def npm():
    manifest = {"name": "probe-pkg", "version": "1.0.0", "main": "index.js"}
    packed = tar({
        "package/package.json": json.dumps(manifest),
        "package/index.js": "module.exports = 'hello from the registry';\n",
    })
    write("npm/tarballs/probe-pkg-1.0.0.tgz", packed)
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(packed).digest()).decode()
    dist = {"tarball": f"{url}/files/npm/tarballs/probe-pkg-1.0.0.tgz", "integrity": integrity}
    packument = {"name": "probe-pkg", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": {**manifest, "dist": dist}}}
    write("npm/probe-pkg/index.json", json.dumps(packument))


def cargo():
    """The sparse protocol of cargo's registry index."""
    packed = tar({
        "probe-crate-1.0.0/Cargo.toml": '[package]\nname = "probe-crate"\nversion = "1.0.0"\nedition = "2021"\n',
        "probe-crate-1.0.0/src/lib.rs": 'pub const TEXT: &str = "hello from the crate";\n',
    })
    write("cargo/crates/probe-crate-1.0.0.crate", packed)
    write("cargo/index/config.json", json.dumps({"dl": url + "/files/cargo/crates/{crate}-{version}.crate"}))
    line = {"name": "probe-crate", "vers": "1.0.0", "deps": [], "features": {}, "yanked": False,
            "cksum": hashlib.sha256(packed).hexdigest()}
    write("cargo/index/pr/ob/probe-crate", json.dumps(line) + "\n")


def git():
    """A repository with a file of 3 MiB that does not compress."""
    bare, work = os.path.join(folder, "git", "app.git"), os.path.join(folder, "work")

    def run(*args, where=work):
        author = ["-c", "user.name=t", "-c", "user.email=t@t.test", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", *author, *args], cwd=where, check=True, stdout=subprocess.DEVNULL)

    os.makedirs(work)
    run("init", "--quiet")
    with open(os.path.join(work, "README"), "w") as readme:
        readme.write("hello from the repository\n")
    with open(os.path.join(work, "noise"), "wb") as noise:
        noise.write(os.urandom(3 << 20))
    run("add", ".")
    run("commit", "--quiet", "--message", "first")
    run("clone", "--quiet", "--bare", work, bare, where=folder)
    run("config", "http.receivepack", "true", where=bare)


write("big.bin", os.urandom(16 << 20))
pypi()
npm()
cargo()
git()
