import pytest

from glitchflow_plugin.products.images import write_figure


class Drawing:
    def __init__(self, fails=False):
        self.fails = fails

    def savefig(self, path, dpi):
        path.write_text(f"{path.suffix} {dpi}")
        if self.fails:
            raise RuntimeError("no")


def test_pictures_are_written_whole_or_not_at_all(tmp_path):
    path = write_figure(Drawing(), tmp_path / "images" / "a.png", dpi=50)
    assert path.read_text() == ".png 50"
    with pytest.raises(RuntimeError):
        write_figure(Drawing(fails=True), tmp_path / "images" / "b.png")
    assert [item.name for item in path.parent.iterdir()] == ["a.png"]
