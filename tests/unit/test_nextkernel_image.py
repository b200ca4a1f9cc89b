# SPDX-License-Identifier: GPL-3.0-or-later
"""BTF out of kernel images: those that this test packs from this machine's own BTF, and real ones of Debian."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Callable

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import btf, kernelimage

ROOT = Path(__file__).resolve().parents[2]
OWN_BTF = Path("/sys/kernel/btf/vmlinux")
BUILD_ID = bytes(range(20))


def pad(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def vmlinux(blob: bytes | None) -> bytes:
    """The least ELF with the sections of a kernel that matter here."""
    notes = struct.pack("<III", 4, 4, 1) + b"Xen\0" + b"\1\0\0\0"
    notes += struct.pack("<III", 4, len(BUILD_ID), 3) + b"GNU\0" + BUILD_ID
    parts = [(".text", b"\x90" * 64), (".notes", notes)] + ([(".BTF", blob)] if blob is not None else [])
    names = b"\0" + b"".join(name.encode() + b"\0" for name, _data in parts) + b".shstrtab\0"
    body, headers = b"", [bytes(64)]
    for name, data in [*parts, (".shstrtab", names)]:
        body = pad(body)
        at = names.index(b"\0" + name.encode() + b"\0") + 1
        headers.append(struct.pack("<IIQQQQIIQQ", at, 1, 0, 0, 64 + len(body), len(data), 0, 0, 1, 0))
        body += data
    body = pad(body)
    head = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQ", 2, 62, 1, 0, 0, 64 + len(body))
    head += struct.pack("<IHHHHHH", 0, 64, 0, 0, 64, len(headers), len(headers) - 1)
    return head + body + b"".join(headers)


def bzimage(packed: bytes, size: int, whole: bool = True) -> bytes:
    """A boot sector, its setup, the packed kernel with its size, and what stands behind it."""
    payload = packed + struct.pack("<I", size)
    setup = bytearray(5 * 512)
    setup[0x1F1] = 4
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", setup, 0x248, 700, len(payload))
    return bytes(setup) + bytes(700) + payload[: None if whole else -100] + (bytes(300) if whole else b"")


def by_program(*command: str) -> Callable[[bytes], bytes]:
    def pack(data: bytes) -> bytes:
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed, so nothing can be packed by it")
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout

    return pack


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1),
    "bzip2": lambda data: bz2.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE, preset=0),
    "zstd": by_program("zstd", "-q", "-1", "-c"),
    "lz4": by_program("lz4", "-l", "-1", "-c"),
}


@pytest.fixture(scope="module")
def own_btf() -> bytes:
    if not OWN_BTF.exists():
        pytest.skip(f"{OWN_BTF} is not there: this kernel has no BTF to pack")
    return OWN_BTF.read_bytes()


@pytest.mark.parametrize("packing", PACKERS)
def test_every_packing_gives_back_the_very_btf_and_the_build_id(tmp_path: Path, own_btf: bytes, packing: str) -> None:
    kernel = vmlinux(own_btf)
    path = tmp_path / "vmlinuz"
    path.write_bytes(bzimage(PACKERS[packing](kernel), len(kernel)))
    found = kernelimage.read_kernel(path)
    assert found.btf == own_btf
    assert found.build_id == BUILD_ID.hex()


@pytest.mark.parametrize("packing", ["zstd", "lz4"])
def test_without_the_library_another_way_is_taken(
    tmp_path: Path, own_btf: bytes, packing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zstd by its program, LZ4 in plain Python."""
    blob = own_btf[: 1 << 20] if packing == "lz4" else own_btf
    kernel = vmlinux(blob)
    path = tmp_path / "vmlinuz"
    path.write_bytes(bzimage(PACKERS[packing](kernel), len(kernel)))
    monkeypatch.setattr(kernelimage, "_library", lambda *_names: None)
    assert kernelimage.read_kernel(path).btf == blob


def test_without_library_and_program_zstd_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(bzimage(PACKERS["zstd"](vmlinux(b"")), 9))
    monkeypatch.setattr(kernelimage, "_library", lambda *_names: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(kernelimage.ImageError, match="neither its library nor its program"):
        kernelimage.read_kernel(path)


def test_a_flat_arm64_image_is_searched_for_its_btf(tmp_path: Path, own_btf: bytes) -> None:
    decoy = b"\x9f\xeb\x01\x00\x18\0\0\0" + b"\xff" * 64
    path = tmp_path / "Image.gz"
    path.write_bytes(gzip.compress(b"MZ" + bytes(4094) + decoy + own_btf + b"\xaa" * 4096, 1))
    assert kernelimage.read_kernel(path).btf == own_btf


def test_an_efi_zboot_image_is_unpacked(tmp_path: Path, own_btf: bytes) -> None:
    kernel = vmlinux(own_btf)
    packed = gzip.compress(kernel, 1) + struct.pack("<I", len(kernel))
    head = b"MZ\0\0zimg" + struct.pack("<II", 512, len(packed)) + bytes(8) + b"gzip"
    path = tmp_path / "vmlinuz"
    path.write_bytes(head + bytes(512 - len(head)) + packed)
    assert kernelimage.read_kernel(path).btf == own_btf


def test_a_debug_vmlinux_is_read_as_it_is(tmp_path: Path, own_btf: bytes) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(vmlinux(own_btf))
    assert kernelimage.read_kernel(path) == kernelimage.Kernel(own_btf, BUILD_ID.hex())


def test_a_kernel_without_btf_was_read_and_has_none(tmp_path: Path) -> None:
    kernel = vmlinux(None)
    path = tmp_path / "vmlinuz"
    path.write_bytes(bzimage(PACKERS["gzip"](kernel), len(kernel)))
    assert kernelimage.read_kernel(path) == kernelimage.Kernel(None, BUILD_ID.hex())


def damaged() -> dict[str, bytes]:
    kernel = vmlinux(b"x" * 5000)
    return {
        "empty": b"",
        "text": b"this is no kernel at all\n" * 40,
        "payload cut off": bzimage(gzip.compress(kernel), len(kernel), whole=False),
        "gzip damaged": bzimage(gzip.compress(kernel)[:30] + bytes(400), len(kernel)),
        "xz damaged": bzimage(lzma.compress(kernel)[:40] + bytes(400), len(kernel)),
        "unknown packing": bzimage(b"LZO?" * 100, 400),
        "zstd that claims a huge kernel": bzimage(b"\x28\xb5\x2f\xfd" + bytes(100), 0xFFFFFFFF),
        "lz4 damaged": bzimage(b"\x02\x21\x4c\x18" + struct.pack("<I", 50) + b"\xff" * 50, 5000),
        "elf cut off": b"\x7fELF\2\1\1" + bytes(20),
        "elf with a wild section table": vmlinux(None)[:-64],
        "32 bits": b"\x7fELF\1\1\1" + bytes(200),
    }


@pytest.mark.parametrize("what", damaged())
def test_what_is_damaged_is_an_error_and_never_a_kernel_without_btf(tmp_path: Path, what: str) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(damaged()[what])
    with pytest.raises(kernelimage.ImageError):
        kernelimage.read_kernel(path)


def test_a_kernel_that_unpacks_beyond_the_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = vmlinux(bytes(3 << 20))
    monkeypatch.setattr(kernelimage, "MAX_UNPACKED", 1 << 20)
    for packing in ("gzip", "xz", "bzip2", "zstd", "lz4"):
        path = tmp_path / packing
        path.write_bytes(bzimage(PACKERS[packing](kernel), len(kernel)))
        with pytest.raises(kernelimage.ImageError, match="1048576"):
            kernelimage.read_kernel(path)


@pytest.mark.parametrize(
    ("packing", "payload"),
    [
        ("gzip", b"\x1f\x8b" + b"\xff" * 20),
        ("xz", b"\xfd7zXZ\0" + b"\xff" * 20),
        ("lzma", b"]\0\0" + b"\xff" * 64),
        ("bzip2", b"BZh" + b"\xff" * 20),
        ("lz4", b"\x02\x21\x4c\x18" + b"\x01\0\0\0\xf0"),
    ],
)
def test_what_cannot_be_unpacked_is_told_with_its_packing(packing: str, payload: bytes) -> None:
    with pytest.raises(kernelimage.ImageError, match=f"the image's {packing} payload cannot be unpacked"):
        kernelimage.unpack(payload)


def lz4_copy(literals: bytes, back: int, length: int) -> bytes:
    """An LZ4 block of some literals and one copy of `length` bytes from `back` bytes before."""
    more = length - 4 - 15
    head = bytes([len(literals) << 4 | 15]) + literals + struct.pack("<H", back)
    return head + b"\xff" * (more // 255) + bytes([more % 255])


def test_an_lz4_block_copies_only_what_is_there_and_no_more_than_a_block_holds() -> None:
    most = 8 << 20
    assert kernelimage.lz4_block(lz4_copy(b"abc", 3, 21)) == b"abc" * 8
    assert kernelimage.lz4_block(lz4_copy(b"abc", 1, 19)) == b"abc" + b"c" * 19
    assert len(kernelimage.lz4_block(lz4_copy(b"a", 1, most - 1))) == most
    for block in (lz4_copy(b"abc", 0, 20), lz4_copy(b"abc", 4, 20), lz4_copy(b"a", 1, most)):
        with pytest.raises(ValueError, match="refers to what is not there"):
            kernelimage.lz4_block(block)
    with pytest.raises(ValueError, match="cut off"):
        kernelimage.lz4_block(lz4_copy(b"abc", 3, 21)[:-1])


def debian_kernels() -> list[Path]:
    return sorted((ROOT / ".cache/lab/kernels").glob("*/vmlinuz"))


def test_real_debian_images_hold_btf_that_names_the_scheduler() -> None:
    images = debian_kernels()
    if not images:
        pytest.skip("the lab's cache holds no kernel; boot the lab once (python -m tests.lab up)")
    wanted = [(btf.TYPEDEF, "btf_trace_sched_switch"), (btf.FUNC, "vfs_unlink")]
    digests = set()
    for image in images:
        found = kernelimage.read_kernel(image)
        assert found.btf is not None and set(btf.type_ids(found.btf, wanted)) == set(wanted), image
        assert found.build_id is not None and len(found.build_id) == 40, image
        digests.add(hashlib.sha256(found.btf).hexdigest())
        assert json.loads((image.parent / "about.json").read_text())["release"]
    assert len(digests) == len(images), "two kernels cannot have the same BTF"
