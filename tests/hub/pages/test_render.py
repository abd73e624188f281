"""Templates that are compiled when they are first shown: none of them waits there with a mistake."""

import pytest

from hub.pages import render


@pytest.mark.parametrize("name", render._ENVIRONMENT.list_templates())
def test_every_template_compiles(name: str) -> None:
    render._ENVIRONMENT.get_template(name)
