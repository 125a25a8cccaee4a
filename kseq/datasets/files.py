"""Files: those of data sets, which are downloaded and verified, and those of users."""

import codecs
import dataclasses
import gzip
import hashlib
import http.client
import os
import pathlib
import re
import shlex
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence, Sized
from typing import TypeAlias, TypeVar

import keras

from kseq.typing import PathLike

# A function from the path of a file of a data set to its content.
Content: TypeAlias = Callable[[str], bytes]
Rows = TypeVar("Rows", bound=Sized)

TIMEOUT = 60  # seconds without a byte
CHUNK = 1 << 16
NEW_LINE = b"\n"
BYTE_ORDER_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a data set.

    Attributes:
        path: Path in the folder of the data set.
        sha256: Checksums of the content, one for each known version of the file.
            Content compressed with gzip is decompressed first, so a file and its `.gz`
            have the same checksum.
        url: Public address. None if the file must be provided by the user.
        unordered: Whether the checksum is that of the sentences in sorted order, see
            `unordered_content`, because the order differs between copies.
    """

    path: str
    sha256: tuple[str, ...]
    url: str | None
    unordered: bool = False


def pinned(sums: str, address: str, unordered: bool = False) -> tuple[File, ...]:
    """Return files from lines of `SHA-256  path`, as `sha256sum` prints them.

    The address of a file is `address` with its path in place of `{}`.
    """
    lines = [line.split() for line in sums.split("\n") if line.strip()]
    return tuple(
        File(path, (sha256,), address.format(path), unordered) for sha256, path in lines
    )


def read(file: File, name: str, directory: PathLike | None = None) -> bytes:
    """Return the content of a file of the data set `name`, decompressed and verified.

    The file is read from the folder `name` in `directory`, if `directory` is given;
    otherwise from the folder `name` in the environment variable KSEQ_DATA_DIR, if that
    folder exists. Otherwise it is downloaded once to the cache of Keras,
    `~/.keras/datasets/kseq`.
    """
    root = directory or os.environ.get("KSEQ_DATA_DIR") or None
    if root is not None and not os.path.isdir(root):
        raise ValueError(
            "`directory`, or KSEQ_DATA_DIR, must be a folder with one folder for each "
            f"data set. Received: {root}, which is not a folder."
        )
    if root is not None:
        folder = pathlib.Path(root, name)
        for path in (folder / file.path, folder / f"{file.path}.gz"):
            if path.is_file():
                return checked(path.read_bytes(), file, path)
        if file.url is not None and (directory or folder.is_dir()):
            raise ValueError(
                f"The data set {name!r} must be in {folder}. Received: a folder "
                f"without {file.path}. Download it from {file.url}, or use no "
                "folder of your own: kseq then downloads it."
            )
    path = pathlib.Path(cache_folder(), name, file.path)
    if path.is_file():
        return checked(path.read_bytes(), file, path)
    by_hand = pathlib.Path(root or "$KSEQ_DATA_DIR", name, file.path)
    if file.url is None:
        raise ValueError(
            f"The data set {name!r} must be in your own folder, since it has no public "
            f"address. Received: no file {by_hand}. Set KSEQ_DATA_DIR to your own "
            f"folder, and put the file into its subfolder {name}."
        )
    content = download(file.url, by_hand)
    unpacked = checked(content, file, file.url, by_hand)
    write_whole(path, content)
    return unpacked


def cache_folder() -> pathlib.Path:
    """Return the folder of kseq in the cache of Keras, which has no public name."""
    home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
    return pathlib.Path(home, "datasets", "kseq")


def checked(
    content: bytes, file: File, where: PathLike, by_hand: PathLike | None = None
) -> bytes:
    """Return the decompressed content. Raise if it has the wrong checksum.

    Args:
        content: The content of the file.
        file: The file.
        where: Path or address of the file, for the message.
        by_hand: For a download, the path at which the user may put the file instead.
    """
    received = f"{len(content):,} bytes that cannot be decompressed"
    unpacked = b""
    try:
        unpacked = gunzip(content)
        received = hashlib.sha256(
            unordered_content(unpacked) if file.unordered else unpacked
        ).hexdigest()
    except (EOFError, OSError, zlib.error):
        pass
    if received in file.sha256:
        return unpacked
    advice = f"Delete it, and download it again from {file.url}."
    if by_hand:
        advice = f"Nothing was kept. Try again later, or {without_download(by_hand)}."
    raise ValueError(
        f"The content of {where} must have the SHA-256 {' or '.join(file.sha256)}. "
        f"Received: {received}, of {len(content):,} bytes. It is damaged, incomplete "
        f"or another version. {advice}"
    )


def without_download(by_hand: PathLike) -> str:
    """Return advice to provide a file without a download."""
    return f"set KSEQ_DATA_DIR to your own folder and put the file in {by_hand}"


def gunzip(content: bytes) -> bytes:
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def unordered_content(content: bytes) -> bytes:
    """Return the blocks between blank lines in sorted order, without comments."""
    blocks = (
        b"\n".join(line for line in block.split(b"\n") if line[:1] != b"#")
        for block in content.strip().split(b"\n\n")
    )
    return b"\n\n".join(sorted(blocks))


def download(url: str, by_hand: PathLike) -> bytes:
    """Return the content of an address.

    Args:
        url: The address.
        by_hand: Path at which the user may put the file instead, for the message.
    """
    parts, received = [], 0
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            print(f"Downloading {url}")
            expected = int(response.headers.get("Content-Length") or 0)
            progress = keras.utils.Progbar(expected or None)
            while part := response.read(CHUNK):
                parts.append(part)
                received += len(part)
                progress.update(received, finalize=received == expected)
        if received < expected:
            raise ConnectionError(f"{received:,} of {expected:,} bytes received")
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        raise OSError(
            f"{url} could not be downloaded: {error}. Nothing was kept. Try again "
            f"when there is a connection, or {without_download(by_hand)}."
        ) from error
    return b"".join(parts)


def write_whole(path: pathlib.Path, content: bytes) -> None:
    """Write a file completely or not at all, also from several processes at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".unfinished")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        pathlib.Path(temporary).unlink(missing_ok=True)


def check_language(language: str, languages: Sequence[str]) -> None:
    """Raise unless a language is one of the languages of a data set."""
    if language not in languages:
        raise ValueError(
            f"`language` must be one of {', '.join(languages)}. Received: "
            f"language={language!r}."
        )


def decoded(content: bytes, where: PathLike) -> str:
    """Return the content of a file as text. Raise unless it is in UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        raise ValueError(
            f"A text file must be in UTF-8. Received: {where}, with the byte "
            f"0x{content[error.start]:02x} at position {error.start:,}, in line "
            f"{content.count(NEW_LINE, 0, error.start) + 1}. Convert it: "
            f"{iconv('UTF-16' if is_wide else 'ITS_ENCODING', where)}."
        ) from error


def iconv(encoding: str, path: PathLike) -> str:
    """Return a command that converts a file to UTF-8, in a new file next to it."""
    old, new = shlex.quote(str(path)), shlex.quote(f"{path}.utf8")
    return f"iconv -f {encoding} -t UTF-8 {old} > {new}"


def read_own(path: PathLike) -> str:
    """Return the text of a user's file, which may be compressed with gzip.

    Each line ends with a line feed only, instead of LF, CR LF or CR. Byte order marks
    at the beginning of lines, which remain when files are joined, are removed.
    """
    try:
        text = decoded(gunzip(pathlib.Path(path).read_bytes()), path)
    except (EOFError, OSError, TypeError, zlib.error) as error:
        raise ValueError(
            f"A text file must be readable. Received: {path}: {error}."
        ) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub(f"^{BYTE_ORDER_MARK}+", "", text, flags=re.MULTILINE)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(
            f"A text file must not contain a NUL character. Received: line {line} of "
            f"{path}, with one. If the file is in UTF-16, convert it to UTF-8: "
            f"{iconv('UTF-16', path)}."
        )
    return text


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines with their numbers, except those with white space only."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.strip("\r")


def separator_of(text: str) -> str:
    """Return the separator of a file: TAB if any line has one inside, else space."""
    return "\t" if any("\t" in line.strip() for line in text.split("\n")) else " "


def not_empty(rows: Rows, what: str, where: PathLike) -> Rows:
    """Return the rows. Raise if there are none."""
    if not rows:
        raise ValueError(f"A file must hold {what}. Received: {where}, without any.")
    return rows
