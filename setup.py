"""Compiles csrc/ into the extension module `pqrst`; everything else stands in pyproject.toml."""

import os
import shutil
from pathlib import Path
from typing import Any

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import Distribution, setup
from setuptools.command.build_ext import build_ext

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


class Source(Distribution):
    """What pyproject.toml says; where the scripts are, also what these need: see build_backend.py."""

    def parse_config_files(self: Any, *arguments: Any, **more: Any) -> None:
        super().parse_config_files(*arguments, **more)
        if os.environ.get("PQRST_SCRIPTS"):
            self.install_requires = [*self.install_requires, *self.extras_require["scripts"]]
            self._finalize_requires()


class WithTypes(build_ext):
    """Puts the stub beside the extension, and once more where type checkers look for it: in a package (PEP 561)."""

    def run(self) -> None:
        super().run()
        if self.inplace or self.editable_mode:
            return
        package = Path(self.build_lib, "pqrst-stubs")
        package.mkdir(exist_ok=True)
        (package / "py.typed").touch()
        for stub in (package / "__init__.pyi", Path(self.build_lib, "pqrst.pyi")):
            shutil.copyfile("pqrst.pyi", stub)


ParallelCompile("PQRST_BUILD_JOBS", default=0).install()
setup(
    distclass=Source,
    cmdclass={"build_ext": WithTypes},
    ext_modules=[
        Pybind11Extension(
            "pqrst",
            sorted(str(path) for path in Path("csrc").glob("*.cpp")),
            depends=sorted(str(path) for path in [*Path("csrc").glob("*.hpp"), *Path("csrc").glob("*.inl")]),
            cxx_std=17,
            extra_compile_args=FLAGS,
            extra_link_args=LINK_FLAGS,
        )
    ],
)
