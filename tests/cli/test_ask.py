import numpy as np
import pytest
from PIL import Image

from xpath.cli.main import main


@pytest.fixture
def tile(tmp_path):
    path = tmp_path / "tile.png"
    Image.fromarray(np.full((64, 64, 3), 220, np.uint8)).save(path)
    return path


def test_a_text_alone_is_read(capsys):
    assert main(["ask", "TILs, but no necrosis", "--region", "breast"]) == 0

    said = capsys.readouterr().out.splitlines()
    assert said[0].split()[:3] == ["present", "breast-tissue-lymphocytic", "infiltrate"]
    assert said[1].startswith("absent     breast-tissue-necrosis or debris")
    assert said[-1] == "1 to look for; region breast; read by offline"


def test_an_image_is_answered(tile, tmp_path, capsys):
    out = tmp_path / "out"

    assert main(["ask", str(tile), "stroma", "--region", "breast", "--out", str(out)]) == 0

    written = capsys.readouterr().out.splitlines()[2:]
    assert written[0] == str(out / "ask.html")
    assert str(out / "masks" / "breast-tissue-stroma.png") in written


@pytest.mark.parametrize("name", ["tile.tif", "tile.webp", "tile.jp2", "tile"])
def test_a_picture_is_known_by_what_it_holds(tile, tmp_path, capsys, name):
    """Programs write tiles as TIFF in strips, which no reader of slides takes."""
    path, form = tmp_path / name, "PNG" if name == "tile" else None
    Image.open(tile).save(path, format=form)

    out = tmp_path / "out"
    assert main(["ask", str(path), "stroma", "--region", "breast", "--out", str(out)]) == 0
    assert (out / "masks" / "breast-tissue-stroma.png").exists()


def test_a_report_is_read_from_a_file(tmp_path, capsys):
    report = tmp_path / "report.txt"
    report.write_text("Invasive carcinoma. History of fat necrosis.")

    assert main(["ask", "--report", str(report), "--region", "breast"]) == 0
    assert "historical breast-tissue-necrosis" in capsys.readouterr().out


def test_everything_is_all_of_a_region(capsys):
    assert main(["ask", "--everything", "--region", "colon"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[0] == "17"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no necrosis"], "asks for nothing"),
        ([], "ask one thing"),
        (["tumor", "--everything", "--region", "breast"], "ask one thing"),
        (["--everything"], "needs a --region"),
        (["gone.png", "tumor"], "is no file"),
        (["gone.svs"], "is no file"),
        (["--report", "gone.txt"], "cannot be read as text"),
        (["tumor", "--reader", "http://example.org/v1"], "unencrypted"),
    ],
)
def test_mistakes_say_what_to_do(arguments, message, capsys):
    assert main(["ask", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["ask", "--help"])
    assert 'xpath ask tile.png "where are the lymphocytes?" --region breast' in (
        capsys.readouterr().out
    )
