"""What the documentation site shows: the repository's own pages, at the places that they have in the repository.

So a relative link means the same on the site and on the forge, and no page is written twice. A linked file that is no
page is served as it is, and a linked folder as its README.md or as a list of its files. The navigation is the
documentation map, docs/README.md: a heading is a section, and each page that it links to is an entry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

TOP = Path(__file__).resolve().parents[2]
PAGES = ("*.md", "docs/**/*.md", "benchmarks/*.md", "config/*.md", "examples/**/*.md", "figures/*.md")
NOTEBOOK = ".ipynb"
MAP = "docs/README.md"
STYLE = "docs/site/extra.css"
PROJECT = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)")
LIST = re.compile(r"^((?![*+-] |\d+\. )\S.*\n)(?=(?:[*+-]|\d+\.) )", re.MULTILINE)
"""The line right above a list's first item."""
FENCED = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`[^`\n]+`")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the navigation of the documentation map, and add the benchmarks and the project's own pages."""
    sections = map_sections((TOP / MAP).read_text(encoding="utf-8"))
    listed = {name for names in sections.values() for name in names}
    benchmarks = sorted(path.relative_to(TOP).as_posix() for path in TOP.glob("benchmarks/*.md"))
    sections.setdefault("Benchmarks", []).extend(name for name in benchmarks if name not in listed)
    sections.setdefault("Project", []).extend(name for name in PROJECT if name not in listed)
    config.nav = ["README.md", MAP, *({title: names} for title, names in sections.items() if names)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take the repository's pages and what they link to in place of the files of docs/."""
    shown = Files(file for file in files if file.src_dir != config.docs_dir)  # the theme's
    shown.append(File.generated(config, STYLE, abs_src_path=str(TOP / STYLE)))
    waiting = sorted({path.relative_to(TOP).as_posix() for pattern in PAGES for path in TOP.glob(pattern)})
    while waiting:
        target = waiting.pop()
        uri = shown_as(target)
        if (TOP / target).exists() and uri not in shown.src_uris:
            shown.append(site_file(target, uri, config))
            waiting += targets(uri, shown.src_uris[uri].content_string) if uri.endswith(".md") else ()
    return shown


def shown_as(target: str) -> str:
    """What a file or folder of the repository is called among the site's: a folder and a notebook are pages."""
    if (TOP / target).is_dir():
        return f"{target}/README.md"
    return f"{target.removesuffix(NOTEBOOK)}.md" if target.endswith(NOTEBOOK) else target


def site_file(target: str, uri: str, config: MkDocsConfig) -> File:
    """The site's file of one of the repository's; of a notebook, or a folder without a README.md, a page is made."""
    path = TOP / target
    if path.suffix == NOTEBOOK:
        return File.generated(config, uri, content=notebook(path))
    if path.is_dir() and not (TOP / uri).is_file():
        return File.generated(config, uri, content=listing(path))
    return File.generated(config, uri, abs_src_path=str(TOP / uri))


def listing(folder: Path) -> str:
    """A page that links to the files of a folder."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    links = "\n".join(f"* [{name}]({name})" for name in names)
    return f"# {folder.relative_to(TOP).as_posix()}\n\n{links}\n"


def notebook(path: Path) -> str:
    """A notebook's cells as a page: text, code, and what the code printed."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        printed = "".join("".join(output.get("text", "")) for output in cell.get("outputs", ()))
        parts += [f"```text\n{printed}```"] if printed else []
    return "\n\n".join(parts)


def targets(page: str, text: str) -> Iterator[str]:
    """What the relative links of a page lead to, as paths from the top; links in code are none."""
    for match in LINK.finditer(INLINE.sub("", FENCED.sub("", text))):
        yield normpath((PurePosixPath(page).parent / match[1]).as_posix())


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to folders and notebooks lead to their pages, and a list begin right below a paragraph, as the forge
    does."""
    here = PurePosixPath(page.file.src_uri).parent

    def led(match: re.Match[str]) -> str:
        target = normpath((here / match[1]).as_posix())
        uri = shown_as(target)
        return match[0] if uri == target else f"]({relpath(uri, here)}{match[2] or ''})"

    parts = FENCED.split(markdown)  # every other one is code
    parts[::2] = [LIST.sub(r"\1\n", LINK.sub(led, part)) for part in parts[::2]]
    return "".join(parts)


def map_sections(text: str) -> dict[str, list[str]]:
    """{section: its pages, as paths from the top} of the documentation map; a page stands where it is first named."""
    sections: dict[str, list[str]] = {}
    title, seen = "", {"README.md", MAP}
    for line in text.splitlines():
        heading = re.fullmatch(r"#{2,} (.+)|\*\*(.+)\*\*", line)
        title = (heading[1] or heading[2]) if heading else title
        for name in targets(MAP, line):
            if name.endswith((".md", NOTEBOOK)) and name not in seen:
                seen.add(name)
                sections.setdefault(title, []).append(shown_as(name))
    return sections
