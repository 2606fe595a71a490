"""The one part of the build that pyproject.toml cannot say: a C extension that may be missing.

Without a compiler the installation works, and leap_repro.runtime computes with torch. OpenMP is used where the compiler
has it. No option here depends on the processor that builds.
"""

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

KERNELS = Extension(
    "leap_repro.runtime._kernels",
    sources=["src/leap_repro/runtime/kernels.c"],
    depends=["src/leap_repro/runtime/kernels_form.h", "src/leap_repro/runtime/kernels_x86.h"],
    extra_compile_args=["-O3", "-std=c11", "-ffp-contract=off"],
    libraries=["m"],
    py_limited_api=True,
    optional=True,
)


class BuildExtension(build_ext):
    """With OpenMP if the compiler has it."""

    def build_extension(self, ext: Extension) -> None:
        """Build it with OpenMP, or else without."""
        plain = list(ext.extra_compile_args)
        try:
            ext.extra_compile_args, ext.extra_link_args = [*plain, "-fopenmp"], ["-fopenmp"]
            super().build_extension(ext)
        except (CompileError, LinkError):
            ext.extra_compile_args, ext.extra_link_args = plain, []
            super().build_extension(ext)


setup(
    ext_modules=[KERNELS],
    cmdclass={"build_ext": BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
