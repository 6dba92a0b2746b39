"""POST /tokenize and /detokenize, as vLLM and as llama.cpp have them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from model.serve.api.body import Body
from model.serve.api.errors import Refusal
from model.serve.api.fields import TokenId
from model.serve.api.service import Service


class TokenizeBody(Body):
    """prompt: vLLM's name for the text, which gets a BOS; content: llama.cpp's, which gets none unless it is asked."""

    model: str | None = None
    prompt: str | None = None
    content: str | None = None
    add_special_tokens: bool | None = None
    add_special: bool | None = None
    parse_special: bool | None = Field(
        default=None, description="whether the name of a special token in the text means it"
    )
    return_token_strs: bool | None = None
    with_pieces: bool | None = None

    def answer(self, service: Service) -> dict[str, Any]:
        service.check_model(self.model)
        if (self.prompt is None) == (self.content is None):
            raise Refusal(400, "prompt or content must be given, and not both", "prompt")
        for other in ("add_special",) if self.content is None else ("add_special_tokens", "return_token_strs"):
            if getattr(self, other) is not None:
                wanted = "prompt" if other != "add_special" else "content"
                raise Refusal(400, f"{other} must be null unless {wanted} is given", other)
        text = self.content if self.prompt is None else self.prompt
        asked = self.add_special if self.prompt is None else self.add_special_tokens
        bos = (self.prompt is not None) if asked is None else asked
        ids = service.tokenizer.encode(text or "", bos=bos, parse_special=bool(self.parse_special))
        if self.with_pieces:
            return {"tokens": [{"id": token, "piece": self.piece(service, token)} for token in ids]}
        strings = {"token_strs": service.tokenizer.pieces(ids)} if self.return_token_strs else {}
        return {"count": len(ids), "max_model_len": service.window, "tokens": ids, **strings}

    def piece(self, service: Service, token: int) -> str | list[int]:
        """A token's text, or its bytes where they are no UTF-8 alone; the name of a special token."""
        data = service.tokenizer.token_bytes(token)
        try:
            return data.decode() or service.tokenizer.pieces([token])[0]
        except UnicodeDecodeError:
            return list(data)


class DetokenizeBody(Body):
    model: str | None = None
    tokens: Annotated[list[TokenId], Field(max_length=1 << 20, fail_fast=True)]

    def answer(self, service: Service) -> dict[str, Any]:
        """The text by vLLM's name and by llama.cpp's."""
        service.check_model(self.model)
        text = service.tokenizer.decode(service.encode("tokens", self.tokens))
        return {"prompt": text, "content": text}
