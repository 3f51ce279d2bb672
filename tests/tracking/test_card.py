from glitchflow_plugin.tracking import card


def test_a_page_shows_its_pictures_however_many_witnesses_there_are():
    content = {
        "target": "V1:STRAIN",
        "witnesses": [f"V1:ENV_SOMEWHERE_IN_THE_BUILDING_{number:04d}" for number in range(500)],
        "model": {"name": "unet"},
    }
    page = card.page(content, run_id="a1", pictures=["pictures/roc.png"])
    assert "500 witness channels" in page
    assert "_0000, " in page
    assert "and 460 more" in page
    assert "unet" in page
    assert page.endswith("![pictures/roc.png](get-artifact?path=pictures%2Froc.png&run_uuid=a1)")
    assert " more" not in card.page({**content, "witnesses": content["witnesses"][:40]}, run_id="a1")
