"""Install minBERT:  pip install -e .   (`.[test]` for the tests' oracles)."""

from setuptools import find_packages, setup

setup(
    name="minbert",
    version="0.1.0",
    description="BERT by hand, with real weights, three tasks at once, and techniques as plain modules",
    license="Apache-2.0",
    packages=find_packages(include=["minbert", "minbert.*"]),
    package_data={"minbert": ["recipes/*.txt", "recipes/*.md", "reading/page.*"]},
    py_modules=["classifier", "multitask_classifier", "sanity_check"],
    python_requires=">=3.11",
    classifiers=["Programming Language :: Python :: 3.11"],  # the versions that the tests were run with
    install_requires=[
        "torch>=2.6,<2.14",
        "numpy>=1.26",
        "scipy>=1.11",
        "tokenizers>=0.20",
        "tqdm>=4.66",
        "huggingface_hub>=0.26",
        "safetensors>=0.4.5",
    ],
    extras_require={
        "plots": ["matplotlib>=3.8"],  # the pictures of `python -m minbert.report`
        "reading": ["pygments>=2.17", "latex2mathml>=3.77"],  # the page of `python -m minbert.reading`
        "test": [
            "pytest>=8,<9",  # with pytest 9.2, pytest-xdist 3.8 splits groups of tests
            "pytest-xdist>=3.6",  # all cores: the tests take 8 minutes on one
            "hypothesis>=6.100",
            "transformers>=4.48",
            "peft>=0.14",
            "ruff>=0.9",
            "matplotlib>=3.8",
            "pygments>=2.17",
            "latex2mathml>=3.77",
        ],
    },
)
