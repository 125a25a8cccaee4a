"""Files of public data sets: where they lie, and whether they are what they should be.

A file is taken from a folder or downloaded, unpacked and compared with its SHA-256. No
caller ever sees the content of a file that is not the right one.
"""

import dataclasses
import gzip
import hashlib
import http.client
import importlib.util
import io
import os
import pathlib
import secrets
import sys
import urllib.request
import zipfile
import zlib
from collections.abc import Callable

TIMEOUT = 60  # seconds without an answer
CANNOT_UNPACK = (OSError, EOFError, zlib.error, zipfile.BadZipFile, KeyError)


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a data set.

    `sha256` is that of the content: of what `address.gz` or `member` of a zip file
    unpacks to. It is a tuple where more than one file is known to be right. With
    `any_order`, it is that of the blocks between empty lines, sorted.
    """

    path: str
    address: str | None
    sha256: str | tuple
    member: str | None = None
    any_order: bool = False


@dataclasses.dataclass(frozen=True)
class Source:
    """What is known about a data set. `print` it to read it.

    `read(content, **options)` makes the parts of the data set, where `content(path)`
    gives the bytes of a file. `package` is the folder of the files in a Python package,
    where these have no address of their own.
    """

    name: str
    summary: str
    licence: str
    citation: str
    files: tuple
    read: Callable = dataclasses.field(repr=False)
    labels: tuple = ()
    package: str | None = None
    how: str | None = None

    def __str__(self):
        lines = [
            f"{self.name}: {self.summary}",
            f"licence: {self.licence}",
            f"cite: {self.citation}",
        ]
        if self.labels:
            lines.append(f"labels: {', '.join(self.labels)}")
        if self.how:
            lines.append(f"how to get it: {self.how}")
        for file in self.files:
            inside = f", {file.member} in it" if file.member else ""
            order = ", its blocks sorted" if file.any_order else ""
            lines.append(f"{file.path}{inside}")
            lines += [f"    {file.address}"] if file.address else []
            lines.append(f"    SHA-256 {_either(file.sha256)}{order}")
        return "\n".join(lines)


def github(repository, commit, path):
    """The address of a file of a public repository, as it was at a commit."""
    return f"https://raw.githubusercontent.com/{repository}/{commit}/{path}"


def find_folder(name, directory, names):
    """Returns the folder of a data set, and whether files may be downloaded to it."""
    if directory is not None:
        folder = pathlib.Path(directory) / name
        if not folder.is_dir():
            raise ValueError(
                f"`directory` must be a folder that holds the data set as {name}/. "
                f"Received: directory={str(directory)!r}, which "
                f"{_holds(pathlib.Path(directory))}. Without `directory`, the data set "
                f"is downloaded. Known sets: {', '.join(names)}."
            )
        return folder, False
    root = os.environ.get("KSEQ_DATA_DIR")
    if root and not pathlib.Path(root).is_dir():
        raise ValueError(
            "The environment variable KSEQ_DATA_DIR must name a folder with one "
            f"folder for each data set. Received: KSEQ_DATA_DIR={root!r}, which "
            f"{_holds(pathlib.Path(root))}. Unset it to download what is needed."
        )
    if root and (pathlib.Path(root) / name).is_dir():
        return pathlib.Path(root) / name, False
    home = pathlib.Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    return home / "datasets" / "kseq" / name, True


def content(source, path, folder, may_download):
    """Returns the unpacked bytes of a file of a data set, checked."""
    [file] = [file for file in source.files if file.path == path]
    folders = [folder]
    if may_download and source.package:
        folders += _package_folders(source.package)
    for place in folders:
        for found in (place / path, place / f"{path}.gz"):
            if found.is_file():
                raw = found.read_bytes()
                mend = "Delete it and " + _how_to_get(source, file)
                return _checked(raw, file, found.name, found, mend)
    if not may_download:
        raise ValueError(
            f"The folder of the data set {source.name} must hold {path}. Received: "
            f"{folder}, which {_holds(folder)}. To mend it, "
            f"{_how_to_get(source, file)}."
        )
    if file.address is None:
        raise ValueError(
            f"The data set {source.name} must be fetched by hand, since no public "
            f"address has {path} alone. {source.how} Or put its files into {folder}."
        )
    return _download(source, file, folder)


def _download(source, file, folder):
    address = file.address
    print(f"Downloading {address}", file=sys.stderr, flush=True)
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as response:
            raw = response.read()  # raises where the connection breaks off
    except http.client.IncompleteRead as error:
        raise ValueError(
            f"The download of {address} must come whole. Received: "
            f"{len(error.partial):,} bytes, {error.expected:,} short of the end, when "
            "the connection broke. Nothing was kept: try again."
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise ValueError(
            f"{address} must be within reach, to download the data set {source.name}. "
            f"Received: {error}. Try again later, or put {file.path} into a folder "
            f"{source.name}/ and name the folder above it as `directory`."
        ) from error
    packing = ".gz" if address.endswith(".gz") else ""
    target = folder / f"{file.path}{packing}"
    mend = (
        "Nothing was kept: try again. If it happens again, the file has changed at its "
        "source, or something on the way has altered it"
    )
    unpacked = _checked(raw, file, target.name, address, mend)
    _write_whole(target, raw)
    return unpacked


def _checked(raw, file, name, where, mend):
    """Unpacks the bytes of a file and compares them with what they should be."""
    try:
        unpacked = _unpacked(raw, file, name)
    except CANNOT_UNPACK as error:
        raise ValueError(
            f"{where} must be a whole {pathlib.Path(name).suffix} file. Received: "
            f"{len(raw):,} bytes that cannot be unpacked ({error}). {mend}."
        ) from error
    accepted = (file.sha256,) if isinstance(file.sha256, str) else file.sha256
    received = hashlib.sha256(_in_order(unpacked, file)).hexdigest()
    if received not in accepted:
        raise ValueError(
            f"{where} must have the content with SHA-256 {_either(file.sha256)}. "
            f"Received: {len(unpacked):,} bytes with SHA-256 {received}, cut short or "
            f"altered. {mend}."
        )
    return unpacked


def _unpacked(raw, file, name):
    if name.endswith(".gz"):
        return gzip.decompress(raw)
    if file.member:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            return archive.read(file.member)
    return raw


def _in_order(unpacked, file):
    if not file.any_order:
        return unpacked
    return b"\n\n".join(sorted(unpacked.split(b"\n\n")))


def _write_whole(target, raw):
    """Writes a file under another name and moves it there when it is complete."""
    unfinished = target.with_name(f"{target.name}.{secrets.token_hex(4)}.unfinished")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_bytes(raw)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(
            f"The folder {target.parent} must be writable, to keep what is downloaded. "
            f"Received: {error}. Another place can be named by the environment "
            "variable KERAS_HOME."
        ) from error


def _package_folders(package):
    name, _, rest = package.partition("/")
    found = importlib.util.find_spec(name)  # finds it without importing it
    roots = (found and found.submodule_search_locations) or ()
    return [pathlib.Path(root) / rest for root in roots]


def _how_to_get(source, file):
    if file.address is None:
        return f"get it again. {source.how}".removesuffix(".")
    return f"get it again from {file.address}"


def _holds(folder):
    if not folder.is_dir():
        return "is a file" if folder.exists() else "does not exist"
    held = sorted(path.name for path in folder.iterdir())
    more = ", ..." if len(held) > 20 else ""
    return f"holds {', '.join(held[:20])}{more}" if held else "is empty"


def _either(sha256):
    return sha256 if isinstance(sha256, str) else " or ".join(sha256)
