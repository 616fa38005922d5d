"""Messages to the text of a prompt, by the model's own chat template."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from base.errors import TspError
from base.inputs import read_template, template_beside
from program.tokenizer import Tokenizer

PLAIN = "plain"
PLAIN_TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
"""The texts of all messages, one behind the other."""


class TemplateError(Exception):
    """A template does not take these messages. One line, for who sent them."""


class ChatTemplate:
    """A chat template; it runs in a sandbox. Raises TspError if it is no Jinja template.

    tokens: what the template may call by name, such as bos_token.
    """

    def __init__(self, source: str, tokens: Mapping[str, str] | None = None) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                    extensions=["jinja2.ext.loopcontrols"])
        environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
        self.source, self._tokens = source, dict(tokens or {})
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise TspError(f"the chat template is not a valid Jinja template: {error}") from error

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The prompt's text. messages: with role and content, oldest first. Raises TemplateError."""
        try:
            return self._template.render(messages=list(messages), add_generation_prompt=True, tools=None,
                                         **self._tokens)
        except TemplateError:
            raise
        except Exception as error:  # whatever a template does wrong with these messages
            raise TemplateError(f"the model's chat template refuses these messages: {error}") from error


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def choose_template(option: str | None, path: Path, tokenizer: Tokenizer) -> ChatTemplate | None:
    """The template of a model, or None if it has none. Raises TspError.

    option: a Jinja file, `PLAIN`, or None for the model's own: the file beside it, then its tokenizer's.
    """
    if option is not None:
        source = PLAIN_TEMPLATE if option == PLAIN else read_template(Path(option))
    else:
        source = template_beside(path) or tokenizer.chat_template
    if not source:
        return None
    return ChatTemplate(source, {"bos_token": tokenizer.token_text(tokenizer.bos),
                                 "eos_token": tokenizer.token_text(tokenizer.eos)})


def prompt_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of a rendered conversation. BOS goes first if the tokenizer adds it and the template has not.

    Raises TspError on a character that no token expresses.
    """
    tokens = tokenizer.encode(text, bos=False)
    return tokens if tokens[:1] == [tokenizer.bos] or (tokens and not tokenizer.adds_bos) else [tokenizer.bos, *tokens]
