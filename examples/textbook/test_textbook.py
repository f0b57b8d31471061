from alscore.testing import check_solver


def test_conforms():
    assert check_solver("textbook", exact=True) == ("float32", "float64")
