"""Installs the node and its tools; used by pip and, through ament_python, by colcon.

What is written elsewhere is read from there: name, version and description from package.xml,
dependencies from requirements/.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

# colcon's symlink install runs a link to this file in a folder that has only some of the others.
HERE = Path(__file__).resolve().parent
# Packages that do not lie at the top level: where each one's folder is.
PACKAGE_ROOTS = {"ddfd_training": "training", "ddfd_trt": "trt", "ddfd_demo": "demo"}
SHARED_FOLDERS = ("launch", "config", "rviz", "foxglove", "models")


def manifest(tag: str) -> str:
    """Returns the text of a tag of package.xml, which must have it."""
    text = ElementTree.parse(HERE / "package.xml").findtext(tag)
    if not text:
        raise ValueError(f"package.xml: expected a <{tag}> with text, got none; add it")
    return " ".join(text.split())


def requirements(name: str) -> list[str]:
    """Returns the requirements in ``requirements/<name>.txt``, without comments."""
    text = (HERE / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def packages() -> list[str]:
    """Returns the packages of all roots."""
    found = find_packages(str(HERE), include=["ddfd_ros", "ddfd_ros.*"])
    for package, root in PACKAGE_ROOTS.items():
        found += find_packages(str(HERE / root), include=[package, f"{package}.*"])
    return found


def data_files(package: str) -> list[tuple[str, list[str]]]:
    """Returns what goes to the package's share folder, each folder's files with their target."""
    share = f"share/{package}"
    entries = [
        ("share/ament_index/resource_index/packages", [f"resource/{package}"]),
        (share, ["package.xml"]),
    ]
    for folder in SHARED_FOLDERS:
        by_parent: dict[Path, list[str]] = {}
        for path in sorted((HERE / folder).rglob("*")):
            relative = path.relative_to(HERE)
            if path.is_file() and "__pycache__" not in relative.parts:
                by_parent.setdefault(relative.parent, []).append(relative.as_posix())
        entries += [(f"{share}/{parent.as_posix()}", files) for parent, files in by_parent.items()]
    return entries


NAME = manifest("name")
PACKAGES = packages()

setup(
    name=NAME,
    version=manifest("version"),
    description=manifest("description"),
    license=manifest("license"),
    maintainer=manifest("maintainer"),
    python_requires=">=3.10",
    packages=PACKAGES,
    package_dir={
        name: f"{root}/{name}" for name, root in PACKAGE_ROOTS.items() if name in PACKAGES
    },
    package_data={"": ["py.typed", "*.json", "*.yaml", "scripts/*.sh"]},
    data_files=data_files(NAME),
    zip_safe=False,
    install_requires=requirements("runtime"),
    extras_require={
        "ros": requirements("ros"),
        "training": requirements("training"),
        "demo": requirements("demo"),
        # colcon test looks for pytest under this name.
        "test": requirements("dev"),
    },
    entry_points={
        "console_scripts": [
            "ddfd_compare = ddfd_ros.ros.compare_main:main",
            "ddfd_summary = ddfd_ros.ros.field_summary:main",
            "ddfd_node = ddfd_ros.ros.main:main",
            "ddfd-train = ddfd_training.commands:train",
            "ddfd-evaluate = ddfd_training.commands:evaluate",
            "ddfd-evaluate-lenses = ddfd_training.commands:evaluate_lenses",
            "ddfd-uncertainty = ddfd_training.commands:uncertainty",
            "ddfd-defocus = ddfd_training.commands:defocus",
            "ddfd-lens = ddfd_training.commands:lens",
            "ddfd-calibrate = ddfd_training.commands:calibrate",
            "ddfd-onboard = ddfd_training.commands:onboard",
            "ddfd-prepare = ddfd_training.commands:prepare",
            "ddfd-export = ddfd_trt.commands:export",
            "ddfd-engine = ddfd_trt.commands:engine",
            "ddfd-verify = ddfd_trt.commands:verify",
            "ddfd-bag = ddfd_ros.bag.cli:main",
            "ddfd-bench = ddfd_trt.commands:bench",
            "ddfd-bundle = ddfd_trt.commands:bundle",
        ],
    },
)
