# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The BTF of a kernel that does not run, out of its image: bzImage, EFI zboot, Image.gz, vmlinux.

An image is some 15 MB packed and 60 MB unpacked; both are bounded here, and held once. What is
packed by zstd or LZ4 is unpacked by the host's library of that name, which its package manager
or systemd needs anyway.
"""

from __future__ import annotations

import bz2
import ctypes
import ctypes.util
import lzma
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Callable, Iterator, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import OneCodeError
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.hostfiles import build_id_of

# Bytes. The largest distribution image is 20 MB packed; a debug vmlinux is larger, but of it one section is read.
MAX_IMAGE = 128 << 20
MAX_UNPACKED = 384 << 20
UNPACK_SECONDS = 60


class ImageError(OneCodeError):
    """The image cannot be read; the message says what was met."""

    code = "EF_BTF_UNREADABLE"


class Kernel(NamedTuple):
    """What was read of a kernel: its BTF (None where it was read whole and has none), its build id in hex or None."""

    btf: bytes | None
    build_id: str | None


def read_kernel(path: Path) -> Kernel:
    """BTF and build id out of an image (bzImage, EFI zboot, Image.gz, vmlinux), or ImageError."""
    with path.open("rb") as file:
        if file.read(4) == b"\x7fELF":
            # A debug vmlinux may have a gigabyte: only its headers and two sections are read.
            return _kernel_of_elf(lambda at, size: _read_at(file, at, size))
        size = path.stat().st_size
        if size > MAX_IMAGE:
            raise ImageError(f"{size} bytes; at most {MAX_IMAGE} are read")
        return kernel_of(unpack(_read_at(file, 0, size)))


def _read_at(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(min(size, MAX_UNPACKED))


def kernel_of(unpacked: Any) -> Kernel:
    """BTF and build id of an unpacked kernel: by its ELF sections, else (arm64's flat image) by BTF's header."""
    view = memoryview(unpacked)
    if bytes(view[:4]) == b"\x7fELF":
        return _kernel_of_elf(lambda at, size: bytes(view[at : at + size]))
    found = scan_for_btf(unpacked)
    if found is None:
        raise ImageError("no BTF was found in the flat kernel of the image, and nothing says that it has none")
    return Kernel(found, None)


_Reader = Callable[[int, int], bytes]


def _kernel_of_elf(read: _Reader) -> Kernel:
    found = {name: place for name, place in _elf_sections(read) if name in (b".BTF", b".notes")}
    notes = read(*found[b".notes"]) if b".notes" in found else b""
    if b".BTF" not in found:
        return Kernel(None, build_id_of(notes))
    blob = read(*found[b".BTF"])
    if len(blob) != found[b".BTF"][1]:
        raise ImageError("its .BTF section is cut off")
    return Kernel(blob, build_id_of(notes))


def _elf_sections(read: _Reader) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """(name, (offset, size)) of each section of a 64-bit little-endian ELF."""
    head = read(0, 64)
    if len(head) < 64 or head[4:6] != b"\x02\x01":
        raise ImageError("the kernel is not a 64-bit little-endian ELF")
    table_at = struct.unpack_from("<Q", head, 40)[0]
    entry, count, names = struct.unpack_from("<HHH", head, 58)
    table = read(table_at, entry * count)
    if entry < 64 or len(table) != entry * count or names >= count:
        raise ImageError("the kernel's section table is cut off")
    headers = [struct.unpack_from("<IIQQQQ", table, index * entry) for index in range(count)]
    strings = read(headers[names][4], headers[names][5])
    for name_at, _type, _flags, _address, at, size in headers:
        yield strings[name_at : name_at + 16].split(b"\0")[0], (at, size)


def scan_for_btf(kernel: Any) -> bytes | None:
    """The largest run of bytes whose header is that of BTF and whose parts fit together."""
    best = None
    blob = kernel if isinstance(kernel, (bytes, bytearray)) else bytes(kernel)
    at = blob.find(b"\x9f\xeb\x01\x00")
    while at >= 0:
        size = _btf_size(blob, at)
        if size and (best is None or size > len(best)):
            best = bytes(blob[at : at + size])
        at = blob.find(b"\x9f\xeb\x01\x00", at + 4)
    return best


def _btf_size(blob: bytes | bytearray, at: int) -> int:
    """Bytes of the BTF at an offset, 0 if there is none."""
    if at + 24 > len(blob):
        return 0
    header, type_at, type_len, string_at, string_len = struct.unpack_from("<IIIII", blob, at + 4)
    end: int = header + max(type_at + type_len, string_at + string_len)
    if not 24 <= header <= 64 or type_at or string_at < type_len or not type_len or not string_len:
        return 0
    fits = at + end <= len(blob) and blob[at + header + string_at] == 0
    return end if fits else 0


class Payload(NamedTuple):
    """The packed kernel within an image: its bytes and, where the image says so, its unpacked size."""

    data: memoryview
    size: int | None


def payload_of(image: bytes) -> Payload:
    """Where the packed kernel stands in a bzImage, an EFI zboot image or a plain packed file."""
    if image[:2] == b"MZ" and image[4:8] == b"zimg":
        at, length = struct.unpack_from("<II", image, 8)
        return _sized(image, at, length)
    if len(image) > 0x250 and image[0x202:0x206] == b"HdrS":
        at, length = struct.unpack_from("<II", image, 0x248)
        return _sized(image, ((image[0x1F1] or 4) + 1) * 512 + at, length)
    return Payload(memoryview(image), None)


def _sized(image: bytes, at: int, length: int) -> Payload:
    """The kernel's build puts the unpacked size behind the payload, four bytes (gzip has it anyway)."""
    if length < 8 or at + length > len(image):
        raise ImageError("the image's payload is cut off")
    size = struct.unpack_from("<I", image, at + length - 4)[0]
    return Payload(memoryview(image)[at : at + length], size)


def unpack(image: bytes) -> Any:
    """The kernel out of an image, bounded by MAX_UNPACKED bytes, or ImageError."""
    payload = payload_of(image)
    magic = bytes(payload.data[:6])
    for start, name, decode in _FORMATS:
        if magic.startswith(start):
            try:
                return decode(payload)
            except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
                raise ImageError(f"the image's {name} payload cannot be unpacked: {error}") from error
    if magic.startswith(b"\x7fELF") or scan_for_btf(image) is not None:
        return image
    raise ImageError(f"the image's payload begins with {magic.hex()}, which is not a compression known here")


def _stream(decoder: Any, payload: Payload) -> bytes:
    """By a decoder object, no further than the bound; what follows the packed stream is left."""
    kernel: bytes = decoder.decompress(payload.data, MAX_UNPACKED)
    if len(kernel) >= MAX_UNPACKED:
        raise ImageError(f"the kernel is larger than {MAX_UNPACKED} bytes unpacked")
    return kernel


def _by_gzip(payload: Payload) -> bytes:
    return _stream(zlib.decompressobj(16 + zlib.MAX_WBITS), payload)


def _by_xz(payload: Payload) -> bytes:
    return _stream(lzma.LZMADecompressor(memlimit=MAX_UNPACKED), payload)


def _by_bzip2(payload: Payload) -> bytes:
    return _stream(bz2.BZ2Decompressor(), payload)


def _by_zstd(payload: Payload) -> Any:
    """By the host's libzstd, which its package manager needs anyway; else by the program of that name."""
    library = _library("zstd", "libzstd.so.1")
    if library is not None and payload.size:
        return _zstd_by_library(library, payload.data, payload.size)
    return _by_program(["zstd", "-dcq"], payload)


def _zstd_by_library(library: Any, packed: memoryview, size: int) -> Any:
    _refuse_size(size)
    library.ZSTD_decompress.restype = ctypes.c_size_t
    library.ZSTD_findFrameCompressedSize.restype = ctypes.c_size_t
    source = bytes(packed)
    frame = library.ZSTD_findFrameCompressedSize(source, ctypes.c_size_t(len(source)))
    if library.ZSTD_isError(ctypes.c_size_t(frame)):
        raise ValueError("no whole zstd frame")
    kernel = ctypes.create_string_buffer(size)
    done = library.ZSTD_decompress(kernel, ctypes.c_size_t(size), source, ctypes.c_size_t(frame))
    if library.ZSTD_isError(ctypes.c_size_t(done)):
        raise ValueError("libzstd refuses it")
    return memoryview(kernel).cast("B")[:done]


def _library(name: str, usual: str) -> Any:
    try:
        return ctypes.CDLL(usual)
    except OSError:
        found = ctypes.util.find_library(name)
    try:
        return ctypes.CDLL(found) if found else None
    except OSError:
        return None


def _refuse_size(size: int | None) -> None:
    if size is None or not 0 < size <= MAX_UNPACKED:
        raise ImageError(f"the image says that its kernel has {size} bytes; at most {MAX_UNPACKED} are unpacked")


def _by_program(command: list[str], payload: Payload) -> bytes:
    """By a program of the host; four bytes of size behind the stream make some of them complain."""
    program = shutil.which(command[0])
    if program is None:
        raise ImageError(f"it is packed with {command[0]}, and neither its library nor its program is here")
    packed = bytes(payload.data[:-4] if payload.size else payload.data)
    try:
        done = subprocess.run(
            [program, *command[1:]], input=packed, capture_output=True, check=False, timeout=UNPACK_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ImageError(f"{command[0]} took longer than {UNPACK_SECONDS} s") from None
    if not done.stdout or len(done.stdout) > MAX_UNPACKED:
        words = done.stderr.decode("utf-8", "replace").strip()[-160:]
        raise ImageError(f"{command[0]} gave {len(done.stdout)} bytes: {words}")
    return done.stdout


_LZ4_BLOCK = 8 << 20


def _by_lz4(payload: Payload) -> bytearray:
    """The kernel's LZ4 has the legacy frame: blocks of 8 MiB, each behind its packed size."""
    data, at, kernel = payload.data, 4, bytearray()
    library = _library("lz4", "liblz4.so.1")
    end = len(data) - (4 if payload.size else 0)
    while at + 4 <= end:
        length = struct.unpack_from("<I", data, at)[0]
        if length == 0 or at + 4 + length > end:
            break
        block = data[at + 4 : at + 4 + length]
        kernel += _lz4_by_library(library, block) if library is not None else lz4_block(bytes(block))
        _refuse_size(len(kernel))
        at += 4 + length
    if payload.size and len(kernel) != payload.size:
        raise ValueError(f"{len(kernel)} bytes were unpacked, the image says {payload.size}")
    return kernel


def _lz4_by_library(library: Any, block: memoryview) -> bytes:
    target = ctypes.create_string_buffer(_LZ4_BLOCK)
    done = library.LZ4_decompress_safe(bytes(block), target, len(block), _LZ4_BLOCK)
    if done < 0:
        raise ValueError("liblz4 refuses a block")
    return target.raw[:done]


def lz4_block(block: bytes) -> bytearray:
    """One LZ4 block in plain Python, some seconds for a kernel, where no liblz4 is installed."""
    out, at, end = bytearray(), 0, len(block)
    try:
        while at < end:
            token = block[at]
            literals, at = _lz4_length(block, at + 1, token >> 4)
            out += block[at : at + literals]
            at += literals
            if at >= end:
                break
            back = block[at] | block[at + 1] << 8
            length, at = _lz4_length(block, at + 2, token & 15)
            _lz4_copy(out, back, length + 4)
    except IndexError:
        raise ValueError("an LZ4 block is cut off") from None
    return out


def _lz4_length(block: bytes, at: int, length: int) -> tuple[int, int]:
    if length < 15:
        return length, at
    while block[at] == 255:
        length += 255
        at += 1
    return length + block[at], at + 1


def _lz4_copy(out: bytearray, back: int, length: int) -> None:
    start = len(out) - back
    if back == 0 or start < 0 or len(out) + length > _LZ4_BLOCK:
        raise ValueError("an LZ4 block refers to what is not there")
    if back >= length:
        out += out[start : start + length]
        return
    pattern = out[start:]
    out += (pattern * (length // back + 1))[:length]


_Decoder = Callable[[Payload], Any]
_FORMATS: tuple[tuple[bytes, str, _Decoder], ...] = (
    (b"\x1f\x8b", "gzip", _by_gzip),
    (b"\xfd7zXZ\0", "xz", _by_xz),
    (b"]\0\0", "lzma", _by_xz),
    (b"BZh", "bzip2", _by_bzip2),
    (b"\x28\xb5\x2f\xfd", "zstd", _by_zstd),
    (b"\x02\x21\x4c\x18", "lz4", _by_lz4),
)
