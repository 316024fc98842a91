"""Compiles csrc/ into the extension module `pqrst`; everything else stands in pyproject.toml."""

import os
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup

# -ffp-contract=off: a compiler may not fuse multiply-add on its own, or the last bit would depend on the machine
# -fno-math-errno: nobody looks at errno, and a square root is one instruction
FLAGS = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra"]
if os.environ.get("PQRST_WERROR"):
    FLAGS.append("-Werror")
if os.environ.get("PQRST_BASELINE_ONLY"):  # no SIMD levels, for tests
    FLAGS.append("-DPQRST_BASELINE_ONLY")
LINK_FLAGS = ["-pthread"]
if os.environ.get("PQRST_SANITIZE"):  # see `make sanitize`
    SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    ASSERTIONS = ["-UNDEBUG", "-D_GLIBCXX_ASSERTIONS"]  # pybind11 then also checks that the GIL is held
    FLAGS += [*SANITIZE, *ASSERTIONS, "-fno-omit-frame-pointer", "-g", "-O1"]
    LINK_FLAGS += SANITIZE

ParallelCompile("PQRST_BUILD_JOBS", default=0).install()
setup(
    ext_modules=[
        Pybind11Extension(
            "pqrst",
            sorted(str(path) for path in Path("csrc").glob("*.cpp")),
            depends=sorted(str(path) for path in [*Path("csrc").glob("*.hpp"), *Path("csrc").glob("*.inl")]),
            cxx_std=17,
            extra_compile_args=FLAGS,
            extra_link_args=LINK_FLAGS,
        )
    ]
)
