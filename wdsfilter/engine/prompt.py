"""A caption inside a checkpoint's own chat template -> token ids, injection-proof by construction.

The template is rendered once. Captions are then encoded in their place by a copy of the checkpoint's tokenizer
in which every control token has another spelling, drawn at random when the copy is made: the template around a
caption is spelled that way, a caption cannot be. So whatever it says, ``<image>`` included, is text, and what
stands around it is encoded as the stock tokenizer does it: the ids are the stock ones for every caption
that spells none of the added tokens.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from wdsfilter.engine.layout import fitted
from wdsfilter.errors import JudgeError


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered template with a place for the caption. Picklable; needs no torch.

    ``disguised`` is the tokenizer with other spellings, in which ``before`` and ``after`` are spelled. The ids of
    a prompt's first ``head`` tokens, up to the last control token before the user's text, are left to the
    processor, which puts an image's placeholders there. ``stock`` is the prompt in the checkpoint's own spelling,
    with a word in place of the caption, and ``tail`` are its ids from ``head`` on.
    """

    disguised: Tokenizer
    before: str
    after: str
    head: int
    controls: frozenset[int]
    max_caption_tokens: int
    longest_token: int
    stock: str
    tail: tuple[int, ...]

    def rest(self, caption: str) -> tuple[list[int], bool]:
        """Ids from ``head`` on, with the caption in its place, up to where the answer begins, and whether it was cut.

        Raises UnicodeEncodeError for a caption with lone surrogates.
        """
        found, cut = fitted(
            *(self.disguised, self.before, caption, self.after),
            most=self.max_caption_tokens,
            longest_token=self.longest_token,
        )
        rest = found[self.head :]
        if self._controls(rest) != self._controls(self.tail):
            raise RuntimeError(
                "a tokenizer whose control tokens are spelled otherwise gave one for a caption"
            )
        return rest, cut

    def continuation(self, answer: str) -> list[int]:
        """Ids of an answer's text as the model would write it after the prompt. Raises JudgeError."""
        prompt, whole = (
            self.disguised.encode(self.after + text, add_special_tokens=False).ids for text in ("", answer)
        )
        if whole[: len(prompt)] != prompt:
            raise JudgeError(f"answer {answer!r} merges with the end of the prompt before it")
        return list(whole[len(prompt) :])

    def _controls(self, ids: Sequence[int]) -> list[int]:
        return [token for token in ids if token in self.controls]


def build_prompt(processor: Any, *, system: str, prompt: str, max_caption_tokens: int) -> Prompt:
    """The prompt of a processor of transformers. ``prompt`` holds ``{caption}`` exactly once. Raises JudgeError."""
    backend = getattr(processor.tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise JudgeError("its tokenizer is none of the library tokenizers: it has no tokenizer.json")
    content = json.loads(backend.to_str())
    disguises = _disguises(content)
    if spelled := [name for name in disguises if name in system or name in prompt]:
        raise JudgeError(f"system or prompt spells a control token of its tokenizer, {spelled[0]!r}")
    word = f"caption{secrets.token_hex(8)}"
    stock = _rendered(processor, system, prompt.replace("{caption}", word))
    if stock.count(word) != 1:
        raise JudgeError(f"its chat template shows the user's text {stock.count(word)} times; accepted: once")

    pattern = re.compile("|".join(map(re.escape, sorted(disguises, key=len, reverse=True))))
    hidden = pattern.sub(lambda found: disguises[found[0]], stock) if disguises else stock
    before, after = hidden.split(word)
    disguised = _disguised(content, disguises)
    ids = (disguised.token_to_id(name) for name in disguises.values())
    controls = frozenset(token for token in ids if token is not None)
    encoding = disguised.encode(hidden, add_special_tokens=False)
    head = 0
    for i, (token, (_, end)) in enumerate(zip(encoding.ids, encoding.offsets, strict=True)):
        if token in controls and end <= len(before):
            head = i + 1
    return Prompt(
        disguised=disguised,
        before=before,
        after=after,
        head=head,
        controls=controls,
        max_caption_tokens=max_caption_tokens,
        longest_token=max(map(len, disguised.get_vocab())),
        stock=stock,
        tail=tuple(encoding.ids[head:]),
    )


def _rendered(processor: Any, system: str, text: str) -> str:
    """The prompt as the chat template writes it; the system's text before the user's where it knows no such turn."""
    if not getattr(processor, "chat_template", None):
        raise JudgeError("it has no chat template (chat_template.jinja): it is not known how to ask it")
    image = {"type": "image"}

    def rendered(*messages: tuple[str, list[dict[str, str]]]) -> str:
        turns = [{"role": role, "content": content} for role, content in messages]
        prompt: str = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return prompt

    user = [image, {"type": "text", "text": text}]
    try:
        if system:
            with_system = rendered(("system", [{"type": "text", "text": system}]), ("user", user))
            if system in with_system:
                return with_system
    except Exception:  # a template refuses as it likes; what it refuses without the turn is told below
        pass
    try:
        return rendered(("user", [image, {"type": "text", "text": f"{system}\n{text}".lstrip()}]))
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise JudgeError(f"its chat template cannot be rendered: {reason[0]}") from error


def _disguises(content: Mapping[str, Any]) -> dict[str, str]:
    """Another spelling for every added token that is more than space. Letters that no normalisation changes."""
    secret = f"wds{secrets.token_hex(16)}n"
    names = [token["content"] for token in content.get("added_tokens", ())]
    return {name: f"{secret}{i}x" for i, name in enumerate(names) if name.replace("▁", " ").strip()}


def _disguised(content: Mapping[str, Any], names: Mapping[str, str]) -> Tokenizer:
    """The tokenizer with other ``names`` for some tokens, the same ids, and nothing added around a text."""
    model = dict(content["model"])
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): token for piece, token in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if "unk_token" in model:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if not _of_control(merge, names)]
    added = [
        {**token, "content": names.get(token["content"], token["content"])}
        for token in content["added_tokens"]
    ]
    off = {"post_processor": None, "truncation": None, "padding": None}
    return Tokenizer.from_str(json.dumps({**content, "model": model, "added_tokens": added, **off}))


def _of_control(merge: str | Sequence[str], names: Mapping[str, str]) -> bool:
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first in names or second in names or first + second in names
