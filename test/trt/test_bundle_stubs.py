"""Stub libraries, made from a small library that is linked as TensorRT's plugins are."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from ddfd_trt.bundle.elf import newest_glibc, resolved_libraries, undefined_symbols
from ddfd_trt.bundle.plan import BundleError
from ddfd_trt.bundle.stubs import wanted_functions, write_stub, write_stubs

pytestmark = pytest.mark.skipif(
    not (shutil.which("gcc") and shutil.which("readelf")), reason="needs gcc and binutils"
)
SONAME = "libbig.so.12"
USER = """
int bigCreate(void); int bigMultiply(int); const char *bigErrorString(int);
int local(void) { return 5; }
int call_create(void) { return bigCreate(); }
int call_multiply(void) { return bigMultiply(local()); }
const char *call_string(void) { return bigErrorString(1); }
"""
BIG = """
int bigCreate(void) { return 0; } int bigMultiply(int a) { return 2 * a; }
const char *bigErrorString(int a) { return "fine"; } int bigUnused(void) { return 0; }
"""
LOAD = """
import ctypes, sys
user = ctypes.CDLL(sys.argv[1])
user.call_string.restype = ctypes.c_char_p
print(user.call_create(), user.call_multiply(), user.call_string().decode())
"""


def compile_library(source, target, *arguments):
    code = target.with_suffix(".c")
    code.write_text(source)
    command = ["gcc", "-shared", "-fPIC", "-o", str(target), str(code), *map(str, arguments)]
    subprocess.run(command, check=True)
    return target


@pytest.fixture
def user(tmp_path):
    """A library that takes three functions of libbig.so.12, which is then gone."""
    script = tmp_path / "big.map"
    script.write_text(f"{SONAME} {{ global: *; }};")
    real = tmp_path / "real"
    real.mkdir()
    big = compile_library(BIG, real / SONAME, f"-Wl,-soname,{SONAME}",
                          f"-Wl,--version-script={script}")  # fmt: skip
    library = compile_library(USER, tmp_path / "libuser.so", big)
    shutil.rmtree(real)
    return library


def load(user, folder):
    command = [sys.executable, "-c", LOAD, str(user)]
    environ = {"LD_LIBRARY_PATH": str(folder), "LD_BIND_NOW": "1"}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def test_what_is_taken_is_found_with_its_version(user):
    assert wanted_functions(user, SONAME) == ["bigCreate", "bigErrorString", "bigMultiply"]
    assert ("bigCreate", SONAME) in undefined_symbols(user)
    assert "local" not in {name for name, _ in undefined_symbols(user)}


def test_the_library_loads_with_the_stub_and_not_without(user, tmp_path):
    without = load(user, tmp_path)
    assert without.returncode != 0
    assert SONAME in without.stderr
    assert write_stubs(user, tmp_path / "stubs", [SONAME]) == 3
    with_stub = load(user, tmp_path / "stubs")
    assert with_stub.returncode == 0, with_stub.stderr
    # Errors, never a silent success; no warning of the loader about versions.
    assert with_stub.stdout.strip() == "1 1 a stub, not the library"
    assert "version" not in with_stub.stderr
    assert [path.name for path in (tmp_path / "stubs").iterdir()] == [SONAME]


def test_a_stub_of_another_version_does_not_do(user, tmp_path):
    names = wanted_functions(user, SONAME)
    write_stub(tmp_path / "plain", SONAME, names, versioned=False)
    assert "version" in load(user, tmp_path / "plain").stderr  # warning or failure, by C library


def test_a_stub_that_lacks_a_function_does_not_do(user, tmp_path):
    write_stub(tmp_path / "short", SONAME, ["bigCreate", "bigMultiply"])
    run = load(user, tmp_path / "short")
    assert run.returncode != 0
    assert "bigErrorString" in run.stderr


def test_a_library_that_takes_nothing_is_refused(user, tmp_path):
    with pytest.raises(BundleError, match=r"libuser\.so: expected functions of libother\.so\.1"):
        write_stubs(user, tmp_path / "stubs", ["libother.so.1"])


def test_the_newest_c_library_decides(tmp_path):
    old = compile_library("int a(void) { return 1; }", tmp_path / "old.so", "-nostdlib")
    code = '__asm__(".symver gnu_get_libc_version, gnu_get_libc_version@GLIBC_{}");'
    code += "const char *gnu_get_libc_version(void); const char *b(void) {{"
    code += "return gnu_get_libc_version(); }}"
    some = compile_library(code.format("2.2.5"), tmp_path / "some.so")
    assert newest_glibc([old]) == (2, 0)
    assert newest_glibc([old, some]) == (2, 2)


def test_libraries_that_a_program_loads_are_found(user, tmp_path):
    write_stubs(user, tmp_path / "stubs", [SONAME])
    found = resolved_libraries([user], [tmp_path / "stubs"])
    assert found == {SONAME: tmp_path / "stubs" / SONAME}
