import pytest

pytest.register_assert_rewrite("theirs")


def pytest_configure(config):
    config.addinivalue_line("markers", "third_party: trains a LightningModule of another package")


@pytest.fixture(scope="class")
def run(request, tmp_path_factory):
    """The module of the test class, trained with our callbacks."""
    suite = request.cls()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in suite.environ.items():
            patch.setenv(name, value)
        return suite.record(tmp_path_factory.mktemp("run"), *suite.callbacks())
