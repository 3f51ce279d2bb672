import io

from omegaconf import OmegaConf

from glitchflow_plugin.commands.configuration import parse_once


def test_a_file_is_parsed_again_when_it_has_changed_and_nobody_changes_what_another_gets(tmp_path, monkeypatch):
    file, parsed, load = tmp_path / "scan.yaml", [], OmegaConf.load
    monkeypatch.setattr(OmegaConf, "load", lambda file: parsed.append(file) or load(file))
    parse_once()

    def read():
        with file.open() as opened:
            return OmegaConf.load(opened)

    file.write_text("defaults: [other]\nq: ${other.q}\n")
    first = read()
    assert first.pop("defaults") == ["other"]
    second = read()
    assert second == {"defaults": ["other"], "q": "${other.q}"}
    assert len(parsed) == 1
    file.write_text("q: 12\n")
    assert read() == {"q": 12}
    assert len(parsed) == 2
    # a path may be another file by now
    assert OmegaConf.load(file) == OmegaConf.load(file) == {"q": 12}
    assert len(parsed) == 4
    # text that lies in no file has no version to tell
    assert OmegaConf.load(io.StringIO("q: 4")) == {"q": 4}
