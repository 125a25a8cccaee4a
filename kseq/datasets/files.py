"""Files that are known by their checksum: found on disk, or downloaded and kept."""

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

import keras

TIMEOUT = 60  # seconds without a byte
CHUNK = 1 << 16
NEW_LINE = b"\n"
BYTE_ORDER_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a data set.

    Attributes:
        path: Where it lies in the folder of its set.
        sha256: The checksum of its content. What is packed with gzip is unpacked first,
            so a file and its `.gz` have the same one. Several, if the content is known
            in several packings.
        url: Its public address; None if it has none and must be put there by hand.
        unordered: Whether the checksum is that of its sentences in sorted order, as
            `unordered_content` puts them, since copies differ in the order.
    """

    path: str
    sha256: tuple
    url: str
    unordered: bool = False


def pinned(sums, address, unordered=False):
    """Files from lines of `SHA-256  path`, as `sha256sum` prints them.

    The address of a file is `address` with the path in place of `{}`.
    """
    lines = [line.split() for line in sums.split("\n") if line.strip()]
    return tuple(
        File(path, (sha256,), address.format(path), unordered) for sha256, path in lines
    )


def read(file, name, directory=None):
    """The content of a file of the data set `name`, unpacked and checked.

    It is looked for in the folder `name` of `directory`, if that is given; otherwise in
    that of the environment variable KSEQ_DATA_DIR, if there is one; otherwise it is
    downloaded once to the cache of Keras, `~/.keras/datasets/kseq`.
    """
    root = directory or os.environ.get("KSEQ_DATA_DIR") or None
    if root is not None and not os.path.isdir(root):
        raise ValueError(
            "`directory`, or KSEQ_DATA_DIR, must be a folder with one folder for each "
            f"data set. Received: {root}, which is no folder."
        )
    if root is not None:
        folder = pathlib.Path(root, name)
        for path in (folder / file.path, folder / f"{file.path}.gz"):
            if path.is_file():
                return checked(path.read_bytes(), file, path)
        if file.url is not None and (directory or folder.is_dir()):
            raise ValueError(
                f"The data set {name!r} must lie in {folder}. Received: a folder "
                f"without {file.path}. Get it from {file.url}, or leave out the "
                "folder, and it is downloaded."
            )
    path = pathlib.Path(cache_folder(), name, file.path)
    if path.is_file():
        return checked(path.read_bytes(), file, path)
    by_hand = pathlib.Path(root or "$KSEQ_DATA_DIR", name, file.path)
    if file.url is None:
        raise ValueError(
            f"The data set {name!r} must lie in a folder of yours, since it has no "
            f"public address. Received: no file {by_hand}. Set KSEQ_DATA_DIR "
            f"to a folder of yours, and put the file into its folder {name}."
        )
    content = download(file.url, by_hand)
    unpacked = checked(content, file, file.url, by_hand)
    write_whole(path, content)
    return unpacked


def cache_folder():
    """The folder that Keras caches in, which has no public name."""
    home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
    return pathlib.Path(home, "datasets", "kseq")


def checked(content, file, where, by_hand=None):
    """The content, unpacked, if it has the right checksum.

    What was downloaded may be put in the place `by_hand` instead.
    """
    received = f"{len(content):,} bytes that cannot be unpacked"
    try:
        unpacked = gunzip(content)
        received = hashlib.sha256(
            unordered_content(unpacked) if file.unordered else unpacked
        ).hexdigest()
    except (EOFError, OSError, zlib.error):
        unpacked = None
    if received in file.sha256:
        return unpacked
    mend = f"Delete it, and get it again from {file.url}."
    if by_hand:
        mend = f"Nothing was kept. Try again later, or {put(by_hand)}."
    raise ValueError(
        f"The content of {where} must have the SHA-256 {' or '.join(file.sha256)}. "
        f"Received: {received}, of {len(content):,} bytes. It is damaged, cut short or "
        f"another version. {mend}"
    )


def put(by_hand):
    """Advice on doing without a download."""
    return f"set KSEQ_DATA_DIR to a folder of yours and put the file in {by_hand}"


def gunzip(content):
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def unordered_content(content):
    """Blocks between blank lines, without comment lines, in sorted order."""
    blocks = (
        b"\n".join(line for line in block.split(b"\n") if line[:1] != b"#")
        for block in content.strip().split(b"\n\n")
    )
    return b"\n\n".join(sorted(blocks))


def download(url, by_hand):
    """Return all that an address serves; a message names the place `by_hand`."""
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
            raise ConnectionError(f"{received:,} of {expected:,} bytes came")
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # which holds the connection
        raise OSError(
            f"{url} could not be downloaded: {error}. Nothing was kept. Try again when "
            f"there is a connection, or {put(by_hand)}."
        ) from error
    return b"".join(parts)


def write_whole(path, content):
    """Writes a file whole or not at all, also when several processes do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".unfinished")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        pathlib.Path(temporary).unlink(missing_ok=True)


def check_language(language, languages):
    """Raise unless a language is one of those of a data set."""
    if language not in languages:
        raise ValueError(
            f"`language` must be one of {', '.join(languages)}. Received: "
            f"language={language!r}."
        )


def decoded(content, where):
    """The text of a file in UTF-8."""
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


def iconv(encoding, path):
    """A command that writes a file in UTF-8 beside one in another encoding."""
    old, new = shlex.quote(str(path)), shlex.quote(f"{path}.utf8")
    return f"iconv -f {encoding} -t UTF-8 {old} > {new}"


def read_own(path):
    """The text of a file of the user's own, which may be packed with gzip.

    Each line ends with a line feed alone, whatever ended it: LF, CR LF or CR, and none
    begins with a byte order mark, as lines do where files were joined.
    """
    try:
        text = decoded(gunzip(pathlib.Path(path).read_bytes()), path)
    except (EOFError, OSError, TypeError, zlib.error) as error:
        raise ValueError(
            f"A text file must be one that can be read. Received: {path}: {error}."
        ) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub(f"^{BYTE_ORDER_MARK}+", "", text, flags=re.MULTILINE)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(
            f"A text file must have no NUL in it. Received: line {line} of {path}, "
            "with one. Is the file in UTF-16, or no text? Convert it to UTF-8: "
            f"{iconv('UTF-16', path)}."
        )
    return text


def lines_of(text):
    """The lines with their numbers, without those that hold white space alone."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.strip("\r")


def separator_of(text):
    """A TAB if any line has one inside, else a space: one for the whole file."""
    return "\t" if any("\t" in line.strip() for line in text.split("\n")) else " "


def not_empty(rows, what, where):
    """The rows, if there are any."""
    if not rows:
        raise ValueError(f"A file must hold {what}. Received: {where}, with none.")
    return rows
