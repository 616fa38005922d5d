"""A conversation with a model: its messages, and an answer to each question."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from base.errors import TspError
from program.tokenizer import Tokenizer

from .answer import Answer, Piece, Question
from .chat import ChatTemplate, prompt_of
from .sampling import Sampling
from .session import Session, Step

LEAST_ROOM = 16
"""Positions that are kept free for an answer."""


@dataclass
class Conversation:
    """Messages that a model's chat template makes to a prompt. The cache of keys and values is kept between answers.

    system: the first message, if any. tokens: of an answer at most; None for as many as there is room for.
    messages: what was said so far, without the system's message. forgotten: messages that were dropped, oldest first,
    because the context has no room for them.
    """

    session: Session
    tokenizer: Tokenizer
    template: ChatTemplate
    sampling: Sampling
    system: str = ""
    tokens: int | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    forgotten: int = 0

    def ask(self, text: str) -> "Turn":
        """Say something; the answer begins when the turn is iterated.

        Raises TspError if the message alone does not fit the context, TemplateError if the template refuses it.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        room = self.session.program.context - min(LEAST_ROOM, self.tokens or LEAST_ROOM)
        while len(prompt := self._prompt(messages)) > room and len(messages) > 2:
            del messages[:2]  # a question and its answer
            self.forgotten += 2
        if len(prompt) > room:
            raise TspError(f"the message makes a prompt of {len(prompt)} tokens, the context of "
                           f"{self.session.program.context} positions leaves room for {room}: shorten it")
        self.messages = messages
        question = Question(prompt=prompt, tokens=self.tokens, sampling=self.sampling)
        return Turn(self, Answer(self.session, self.tokenizer, question), len(prompt))

    def reset(self) -> None:
        """Forget all messages."""
        self.messages, self.forgotten = [], 0

    def _prompt(self, messages: list[dict[str, Any]]) -> list[int]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return prompt_of(self.tokenizer, self.template.render([*system, *messages]))


class Turn:
    """An answer as it comes; iterate `prefill()`, then `pieces()`. What was said when that ends is kept.

    cached, length: tokens of the prompt that need not run, and all of them. steps: the positions that ran.
    """

    def __init__(self, conversation: Conversation, answer: Answer, length: int) -> None:
        self._conversation, self._answer = conversation, answer
        self.cached, self.length = answer.cached, length
        self.steps: list[Step] = []

    def prefill(self) -> Iterator[Step]:
        """Run the tokens of the prompt but the last."""
        for step in self._answer.prefill():
            self.steps.append(step)
            yield step

    def pieces(self) -> Generator[Piece]:
        """Run the last token of the prompt, then one for each piece."""
        said = ""
        try:
            for piece in self._answer.pieces():
                self.steps.append(piece.step)
                said += piece.text
                yield piece
        finally:
            self._conversation.messages.append({"role": "assistant", "content": said})
