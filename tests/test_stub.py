import pytest
from conftest import REPOSITORY


def test_the_stub_says_what_the_extension_offers():
    pytest.importorskip("pybind11_stubgen", reason="comes with the dev extra")
    from make_stub import stub

    assert (REPOSITORY / "pqrst.pyi").read_text() == stub(), "run `make stubs`"
