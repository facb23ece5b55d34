"""The native twin of the fast path (edgedns/engine/_fastpath.c), one abi3 module. Without a compiler plain Python answers."""

from setuptools import Extension, setup

FASTPATH = Extension(
    "edgedns.engine._fastpath",
    ["edgedns/engine/_fastpath.c"],
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    # Doubles must come out as Python's do: no fused multiply-add.
    extra_compile_args=["-O2", "-std=c11", "-Wall", "-Wextra", "-ffp-contract=off"],
    py_limited_api=True,
    optional=True,
)

setup(ext_modules=[FASTPATH], options={"bdist_wheel": {"py_limited_api": "cp311"}})
