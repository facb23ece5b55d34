"""The native twins, abi3 modules: of the fast path (engine/_fastpath.c) and of the load generator (bench/_volley.c).

Without a compiler plain Python answers and asks.
"""

from glob import glob

from setuptools import Extension, setup

FASTPATH = Extension(
    "edgedns.engine._fastpath",
    ["edgedns/engine/_fastpath.c"],
    depends=sorted(glob("edgedns/engine/_fastpath_*.h")),
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    # Doubles must come out as Python's do: no fused multiply-add.
    extra_compile_args=["-O2", "-std=c11", "-Wall", "-Wextra", "-ffp-contract=off"],
    py_limited_api=True,
    optional=True,
)

VOLLEY = Extension(
    "edgedns.bench._volley",
    ["edgedns/bench/_volley.c"],
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    extra_compile_args=["-O2", "-std=c11", "-Wall", "-Wextra"],
    py_limited_api=True,
    optional=True,
)

setup(ext_modules=[FASTPATH, VOLLEY], options={"bdist_wheel": {"py_limited_api": "cp311"}})
