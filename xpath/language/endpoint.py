"""A reader behind an OpenAI-compatible server.

Nothing leaves the machine unless a URL is given by hand: there is no default, no look-up of
settings, no redirect, and plain ``http`` goes to this machine only. What the server answers is
checked as if nothing had constrained it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args

from xpath.errors import ConfigError, ReaderError
from xpath.labels import load_labels
from xpath.language.evidence import EvidenceFinder
from xpath.language.instructions import instructions, response_schema
from xpath.language.intents import guess_case
from xpath.language.reading import Mention, Reading, Status
from xpath.language.transport import Transport
from xpath.lexicon import load_lexicon

if TYPE_CHECKING:
    from xpath.labels import LabelTree
    from xpath.language.reading import Case, Request

__all__ = ["EndpointReader"]


class EndpointReader:
    """Asks a language model, with a JSON schema and temperature 0.

    Args:
        url: Base of the server's interface, e.g. ``http://localhost:8000/v1``; ``https`` anywhere.
        model: Name of the model on the server.
        tree: Labels to find; by default the 160 published ones.
        key: Sent as a bearer token, if given.
        timeout: Seconds for one answer, all in all.
        max_tokens: Longest answer.

    Raises:
        ConfigError: The URL is not of these kinds, or a limit is not positive.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        tree: LabelTree | None = None,
        key: str | None = None,
        timeout: float = 60.0,
        max_tokens: int = 4096,
    ) -> None:
        if max_tokens < 1:
            raise ConfigError(f"max_tokens must be at least 1, got {max_tokens}")
        self.tree = tree or load_labels()
        self.name = f"endpoint {model}"
        self._model = model
        self._max_tokens = max_tokens
        self._transport = Transport(f"{url.rstrip('/')}/chat/completions", timeout=timeout, key=key)

    def read(self, request: Request) -> Reading:
        """Labels, spans and statuses of a text, as the model reads it.

        Raises:
            ReaderError: The server cannot be reached, refuses, takes too long, or answers twice
                with something else than the schema.
        """
        case = request.case or guess_case(request.text)
        region = None if request.region is None else self._region(request.region)
        if request.region is not None and region is None:
            return Reading((), case, None, unknown=(request.region,), reader=self.name)
        messages = [
            {"role": "system", "content": instructions(self.tree, region)},
            {"role": "user", "content": _question(request.text, case, region)},
        ]
        answer = self._ask(messages, region)
        try:
            return self._reading(answer, request.text, case, region)
        except _NotTheSchema as error:
            messages += [
                {"role": "assistant", "content": answer},
                {"role": "user", "content": f"That is not the schema: {error}. Answer again."},
            ]
        try:
            return self._reading(self._ask(messages, region), request.text, case, region)
        except _NotTheSchema as error:
            raise ReaderError(
                f"{self._transport.url} twice answered something else than the schema: {error}; "
                "is the model too small, or max_tokens too low?"
            ) from error

    def _region(self, name: str) -> str | None:
        if name.lower() in self.tree.regions:
            return name.lower()
        return load_lexicon().whole(name)[1]

    def _ask(self, messages: list[dict[str, str]], region: str | None) -> str:
        """The content of one answer."""
        body = {
            "model": self._model,
            "messages": messages,
            "temperature": 0,
            "seed": 0,
            "max_tokens": self._max_tokens,
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": "reading",
                    "strict": True,
                    "schema": response_schema(self.tree, region),
                },
            },
        }
        answer = self._transport.post(body)
        try:
            content = answer["choices"][0]["message"]["content"]
        except (LookupError, TypeError) as error:
            raise ReaderError(
                f"{self._transport.url} is no chat interface: choices[0].message.content is missing"
            ) from error
        return content if isinstance(content, str) else ""

    def _reading(self, answer: str, text: str, case: Case, region: str | None) -> Reading:
        """A checked answer. What is invented is unknown, what has no evidence is dropped."""
        values = _checked(answer)
        finder = EvidenceFinder(text)
        here = {label.id: label for label in self.tree if region in (None, label.region)}
        mentions, unknown, dropped = [], list(values["unknown"]), 0
        for entry in values["mentions"]:
            label = here.get(entry["label"])
            if label is None:
                unknown.append(entry["label"])
                continue
            span = finder.find(entry["evidence"])
            if span is None and entry["evidence"].strip() == "" and case == "exploratory":
                span = (0, 0)
            if span is None:
                dropped += 1
                continue
            mentions.append(Mention(label, *span, entry["status"]))
        return Reading(
            mentions=tuple(sorted(mentions, key=lambda mention: mention.start)),
            case=case,
            region=region or (values["region"] if values["region"] in self.tree.regions else None),
            unknown=tuple(dict.fromkeys(unknown)),
            reader=self.name,
            dropped=dropped,
        )


class _NotTheSchema(Exception):
    """An answer that is not what was asked for. The message says where."""


def _question(text: str, case: Case, region: str | None) -> str:
    return f"Case: {case}\nRegion of the slide: {region or 'not known'}\nText:\n{text}"


def _checked(answer: str) -> dict[str, Any]:
    """An answer of the schema's shape. Labels and evidence are not looked at."""
    try:
        values = json.loads(answer)
    except ValueError as error:
        raise _NotTheSchema(f"not JSON ({error})") from error
    if not isinstance(values, dict) or set(values) != {"region", "mentions", "unknown"}:
        raise _NotTheSchema("wanted an object of region, mentions and unknown, nothing else")
    if not isinstance(values["region"], str | None):
        raise _NotTheSchema("region must be a string or null")
    for name in ("mentions", "unknown"):
        if not isinstance(values[name], list):
            raise _NotTheSchema(f"{name} must be an array")
    if not all(isinstance(word, str) for word in values["unknown"]):
        raise _NotTheSchema("unknown must hold strings")
    for number, entry in enumerate(values["mentions"]):
        _check_mention(entry, number)
    return values


def _check_mention(entry: Any, number: int) -> None:
    wanted = {"label", "evidence", "status"}
    if not isinstance(entry, dict) or set(entry) != wanted:
        raise _NotTheSchema(f"mentions[{number}] must have label, evidence and status, no more")
    if not all(isinstance(value, str) for value in entry.values()):
        raise _NotTheSchema(f"mentions[{number}] must hold strings")
    if entry["status"] not in get_args(Status):
        raise _NotTheSchema(f"mentions[{number}].status must be one of {get_args(Status)}")
