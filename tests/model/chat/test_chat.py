"""Oracles: transformers' apply_chat_template on the published format, Meta's encoding turn by turn, the tutorial."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from model import Tokenizer
from model.chat.conversation import Budget, Conversation, encode_chat
from model.chat.session import Trimmed
from model.chat.templates import TEMPLATES, default_template, has_space_after_special
from model.loading.weights import BUILT_IN
from model.storyteller import tokenizer_json
from tests.conftest import examples

STORYTELLER = Tokenizer.from_pretrained()
# Touvron et al. 2023 as Jinja: what is stripped, and what is not, is Meta's own code.
LLAMA_2 = (
    "{% set has_system = messages[0].role == 'system' %}"
    "{% for message in messages[has_system | int:] %}"
    "{% if message.role == 'user' %}"
    "{% set system = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' if has_system and loop.first else '' %}"
    "{{ bos_token + '[INST] ' + (system + message.content).strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + message.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
SYSTEM = {"role": "system", "content": "Be short."}


class Merging:
    """A tokenizer whose pieces hold line breaks."""

    bos_id, eos_id = 1, 2

    def encode(self, text: str, bos: bool) -> list[int]:
        return [len(text)]


def user(text: str, **parts: str) -> dict[str, str]:
    return {"role": "user", "content": text, **parts}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.fixture(scope="module")
def llama_2(llama2_tokenizer, tmp_path_factory) -> Path:
    """A folder with Llama 2's tokenizer, its tokenizer.json made as the storyteller's; the published one is alike."""
    folder = tmp_path_factory.mktemp("llama-2")
    (folder / "tokenizer.model").write_bytes(llama2_tokenizer.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_json, "FOLDER", folder)
        tokenizer_json.main()
    return folder


@pytest.fixture(scope="module", params=["storyteller", "llama-2"])
def folder(request) -> Path:
    return BUILT_IN if request.param == "storyteller" else request.getfixturevalue("llama_2")


@pytest.fixture(scope="module")
def ours(folder) -> Tokenizer:
    return Tokenizer.from_pretrained(folder)


@pytest.fixture(scope="module", params=["tokenizer.json", "legacy", "not legacy"])
def theirs(request, folder) -> PreTrainedTokenizerFast:
    """transformers' tokenizer: by the rules of tokenizer.json, or by `legacy`, which overrides them."""
    if request.param == "tokenizer.json":
        return PreTrainedTokenizerFast.from_pretrained(folder)
    return LlamaTokenizer.from_pretrained(folder, legacy=request.param == "legacy")


# No "<", with which transformers reads special tokens, no "▁", which it takes for a space, no zero.
TEXT = st.text(
    st.one_of(st.sampled_from(" \n[]/ITNS.é"), st.characters(codec="utf-8", exclude_characters="<▁\0")), max_size=12
)
CHAT = st.tuples(st.none() | TEXT, st.lists(st.tuples(TEXT, TEXT), max_size=2), TEXT)


def messages_of(chat: tuple) -> list[dict[str, str]]:
    system, turns, last = chat
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, *(one for u, a in turns for one in (user(u), assistant(a))), user(last)]


@examples(40)
@given(chat=CHAT)
def test_llama_2_as_transformers(ours, theirs, chat):
    messages = messages_of(chat)
    wanted = theirs.apply_chat_template(messages, chat_template=LLAMA_2, tokenize=True, return_dict=False)
    space = getattr(theirs, "legacy", True)
    assert encode_chat(ours, messages, space_after_special=space) == wanted


@pytest.mark.parametrize("trigger", ["A:", "Let's think step by step:"])
def test_a_trigger_as_the_answers_beginning_in_transformers(folder, ours, trigger):
    messages = [SYSTEM, user("Who are you?")]
    options = dict(chat_template=LLAMA_2.replace("+ ' ' + eos_token", ""), tokenize=True, return_dict=False)
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)
    begun = theirs.apply_chat_template([*messages, assistant(trigger)], **options)
    assert encode_chat(ours, messages, trigger=trigger) == begun


def test_llama_2_as_meta_encodes_it(llama2_tokenizer):
    """Each turn on its own: BOS, the text, EOS after an answer."""
    sp = SentencePieceProcessor(model_file=str(llama2_tokenizer))
    wanted = [1, *sp.encode("[INST] <<SYS>>\nBe short.\n<</SYS>>\n\nHello [/INST] Hi! "), 2]
    wanted += [1, *sp.encode("[INST] What's up? [/INST]")]
    messages = [SYSTEM, user("Hello\n"), assistant("Hi! \n"), user(" What's up?")]
    assert encode_chat(Tokenizer(llama2_tokenizer), messages) == wanted
    assert wanted[:4] == [1, 518, 25580, 29962]  # <s> ▁[ INST ]


INSTRUCTION = "Below is an instruction that describes a task"
WRITE = "Write a response that appropriately completes the request.\n\n### Instruction:\n"
ALPACA = {
    "one turn": ([user("Name a king.")], f"{INSTRUCTION}. {WRITE}Name a king.\n\n### Response:"),
    "an input": (
        [user("Name the king.", input="Arthur came.")],
        f"{INSTRUCTION}, paired with an input that provides further context. {WRITE}Name the king.\n\n"
        "### Input:\nArthur came.\n\n### Response:",
    ),
    "a system message": ([SYSTEM, user("Hi")], "Be short.\n\n### Instruction:\nHi\n\n### Response:"),
}


@pytest.mark.parametrize("case", ALPACA)
def test_alpaca(case):
    """Taori et al. 2023: what the model was trained on is this text, encoded as a whole."""
    messages, text = ALPACA[case]
    for space in (True, False):  # the text is the first of its sequence
        ids = encode_chat(STORYTELLER, messages, "alpaca", space_after_special=space)
        assert ids == STORYTELLER.encode(text)


def test_alpaca_of_several_turns():
    """An answer ends with EOS, as in training; the next turn follows without BOS or preamble."""
    t = STORYTELLER
    ids = encode_chat(t, [SYSTEM, user("Hi"), assistant("Ho"), user("Why?")], "alpaca", trigger="Because")
    first = t.encode("Be short.\n\n### Instruction:\nHi\n\n### Response:Ho", eos=True)
    assert ids == first + t.encode("### Instruction:\nWhy?\n\n### Response:Because", bos=False)


def test_plain():
    ids = encode_chat(STORYTELLER, [SYSTEM, user("Hi "), assistant(" Ho\n"), user(" Why?")], "plain", trigger="For")
    assert ids == STORYTELLER.encode("Be short.\nHi\nHo\nWhy?\nFor")


MARKS = st.sampled_from(
    ["<s>", "</s>", "<unk>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", " ", "a", "\n", "{}", "{0}"]
)


@pytest.mark.parametrize("template", TEMPLATES)
@given(texts=st.lists(st.lists(MARKS, max_size=5).map("".join), min_size=4, max_size=4))
def test_marks_in_a_message_stay_text(template, texts):
    """Whatever the text: as many special tokens as the template itself has, and each text is still to be read."""
    chat = [{"role": "system", "content": texts[0]}, user(texts[1]), assistant(texts[2]), user(texts[3])]
    harmless = [message | {"content": "b"} for message in chat]
    ids, bare = (encode_chat(STORYTELLER, messages, template) for messages in (chat, harmless))
    specials = STORYTELLER.special.values()
    assert [i for i in ids if i in specials] == [i for i in bare if i in specials]
    for text in texts:
        assert text.strip() in STORYTELLER.decode(ids)


@pytest.mark.parametrize(
    ("messages", "error", "message"),
    [
        ([], ValueError, "messages must hold at least the user's message, got none"),
        ("Hi", TypeError, "messages must be a list"),
        (["Hi"], TypeError, r"messages\[0\] must be {'role': ..., 'content': ...}, got 'Hi'"),
        ([{"role": "user"}], ValueError, r"messages\[0\] must have a content"),
        ([{"content": "Hi"}], ValueError, r"messages\[0\] must have a role"),
        ([user(5)], TypeError, r"messages\[0\]: content must be a str, got 5"),
        ([user("a"), assistant(None), user("b")], TypeError, r"messages\[1\]: content must be a str, got None"),
        ([user("a"), {"role": "tool", "content": "b"}], ValueError, r"messages\[1\] must have role .*, got 'tool'"),
        ([user("a"), SYSTEM, user("b")], ValueError, r"messages\[1\] must have role 'assistant' .*, got 'system'"),
        ([SYSTEM, SYSTEM, user("b")], ValueError, r"messages\[1\] must have role 'user' .*, got 'system'"),
        ([user("a"), user("b")], ValueError, r"messages\[1\] must have role 'assistant' .*, got 'user'"),
        ([assistant("a"), user("b")], ValueError, r"messages\[0\] must have role 'user' .*, got 'assistant'"),
        ([user("a"), assistant("b")], ValueError, r"messages\[1\], the last, must have role 'user', got 'assistant'"),
        ([SYSTEM], ValueError, r"messages\[0\], the last, must have role 'user', got 'system'"),
        ([user("a", input="b")], ValueError, r"messages\[0\] must have no input: the template llama-2"),
        ([SYSTEM | {"input": "b"}, user("a")], ValueError, r"messages\[0\] must have no input: only a user's"),
    ],
)
def test_messages_that_are_refused(messages, error, message):
    with pytest.raises(error, match=message):
        encode_chat(STORYTELLER, messages)


def test_other_errors():
    with pytest.raises(ValueError, match="template must be one of llama-2, alpaca, plain, got 'vicuna'"):
        encode_chat(STORYTELLER, [user("Hi")], "vicuna")
    with pytest.raises(TypeError, match=r"messages\[0\]: input must be a str, got 3"):
        encode_chat(STORYTELLER, [user("Hi", input=3)], "alpaca")
    with pytest.raises(ValueError, match="space_after_special must be True for this tokenizer"):
        encode_chat(Merging(), [user("Hi")], space_after_special=False)
    with pytest.raises(TypeError, match="trigger must be a str, got None"):
        encode_chat(STORYTELLER, [user("Hi")], trigger=None)
    with pytest.raises(ValueError, match=r"reserved must be in 1 \.\. 511"):
        Conversation(STORYTELLER, window=512, reserved=512)
    with pytest.raises(ValueError, match="reserved must be an integer >= 1, got 0"):
        Conversation(STORYTELLER, window=512, reserved=0)
    with pytest.raises(ValueError, match=r"messages\[1\] must have role 'assistant'"):
        Conversation(STORYTELLER, window=512, reserved=9, history=[user("Hi")])


def write(path, content) -> None:
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_the_template_that_a_folder_expects(tmp_path):
    config, jinja = tmp_path / "tokenizer_config.json", tmp_path / "chat_template.jinja"
    assert default_template(None) == "plain" and default_template(tmp_path) == "llama-2"
    for own in (LLAMA_2, [{"name": "default", "template": LLAMA_2}]):
        write(config, {"chat_template": own})
        assert default_template(tmp_path) == "llama-2"
    write(config, {"chat_template": "<|user|>{{ messages }}"})
    with pytest.raises(ValueError, match=r"lacks \[INST\]; --template must say which to use: llama-2, alpaca, plain"):
        default_template(tmp_path)
    write(jinja, LLAMA_2)  # which goes before the other
    assert default_template(tmp_path) == "llama-2"


def test_the_space_of_a_folder_that_transformers_saved(theirs, tmp_path):
    theirs.save_pretrained(tmp_path)
    assert has_space_after_special(tmp_path) is getattr(theirs, "legacy", True)


def test_the_space_of_other_folders(tmp_path):
    assert has_space_after_special(tmp_path) is True
    config, rules = tmp_path / "tokenizer_config.json", tmp_path / "tokenizer.json"
    write(config, {"legacy": False})
    assert has_space_after_special(tmp_path) is False
    write(rules, (BUILT_IN / "tokenizer.json").read_text())  # Llama 2's own folder: the rules are what it was made with
    assert has_space_after_special(tmp_path) is True
    write(rules, {"normalizer": None, "pre_tokenizer": {"type": "ByteLevel"}})
    assert has_space_after_special(tmp_path) is False
    write(config, {"legacy": True})
    assert has_space_after_special(tmp_path) is True


@pytest.mark.parametrize(
    "rules",
    [
        {"normalizer": {"type": "Sequence"}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": 3}},
        {"normalizer": {"type": "Sequence", "normalizers": [None, 3, "Prepend"]}},
    ],
)
def test_rules_that_are_none_tell_nothing(tmp_path, rules):
    (tmp_path / "tokenizer.json").write_text(json.dumps(rules))
    assert has_space_after_special(tmp_path) is True


def test_a_template_that_is_no_utf_8_is_looked_at_all_the_same(tmp_path):
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff [INST]")
    assert default_template(tmp_path) == "llama-2"


def test_the_tutorials_arithmetic():
    assert Budget(window=4096, reserved=512, system=124, trigger=11, history=390).left == 3059


@pytest.mark.parametrize("template", TEMPLATES)
@given(system=TEXT, texts=st.lists(TEXT, max_size=3), trigger=TEXT)
def test_a_budget_adds_up(template, system, texts, trigger):
    """Oracle: the prompt's own length, and that of the chat without the part in question."""
    chat = Conversation(
        STORYTELLER,
        window=4096,
        reserved=9,
        template=template,
        system=system,
        trigger=trigger,
        history=[user("a"), assistant("b")],
    )
    for text in texts:
        chat.ask(text)
        chat.answer(text)
    budget = chat.budget()
    ids = chat.ask("Who?").ids
    assert ids == encode_chat(STORYTELLER, chat.messages, template, trigger)
    size, rest = chat.sizes(chat.said)
    assert abs(budget.left - rest.left) <= 2  # tokens at the seams hang on the text
    assert len(ids) == 4096 - 9 - rest.left + size
    assert min(budget.system, budget.trigger) >= 0 and budget.history >= 2
    chat.system, chat.trigger = "", ""
    assert (chat.sizes(chat.said)[1].system > 0) == (template == "alpaca")  # its preamble


def conversation(**options) -> Conversation:
    return Conversation(STORYTELLER, template="plain", reserved=8, **options)


def test_a_prompt_that_just_fits_and_one_that_does_not():
    size = len(STORYTELLER.encode("The king\n"))
    chat = conversation(window=8 + size)
    assert len(chat.ask("The king").ids) == size
    chat = conversation(window=7 + size)
    arithmetic = (
        rf"must fit, got {size} tokens: {7 + size} window - 8 answer - 0 system - 0 trigger - 0 history = {size - 1}"
    )
    with pytest.raises(ValueError, match=arithmetic):
        chat.ask("The king")
    assert chat.messages == [] and not chat.is_waiting


def test_the_oldest_turns_make_room():
    said = [user("a king"), assistant("a queen"), user("a dragon"), assistant("a knight")]
    left = [*said[2:], user("a horse")]
    window = 8 + len(encode_chat(STORYTELLER, [SYSTEM, *left], "plain"))
    options = dict(window=window, system=SYSTEM["content"], history=said)
    with pytest.raises(ValueError, match="history = "):
        conversation(**options).ask("a horse")
    chat = conversation(**options, drop_oldest=True)
    prompt = chat.ask("a horse")
    assert prompt.dropped == 1 and chat.messages == [SYSTEM, *left] and len(prompt.ids) == window - 8
    chat.answer("x")
    before = chat.messages
    with pytest.raises(ValueError, match="0 history"):  # not even alone
        chat.ask("a horse " * 20)
    assert chat.messages == before


def test_a_conversation():
    chat = conversation(window=512, system=" Be short.", trigger=" A: ")
    chat.ask(" Hi ")
    with pytest.raises(ValueError, match="must be answered or taken back"):
        chat.ask("Hi?")
    assert chat.answer(" Ho.\n") == "A: Ho." and chat.messages == [SYSTEM, user("Hi"), assistant("A: Ho.")]
    with pytest.raises(ValueError, match="must be asked before it is answered"):
        chat.answer("Ho again")
    chat.take_back()  # nothing to take
    chat.ask("Bye")
    chat.take_back()
    assert chat.messages == [SYSTEM, user("Hi"), assistant("A: Ho.")]
    chat.reset()
    chat.system = ""
    assert chat.messages == []
    with pytest.raises(ValueError, match=r"messages\[0\] must have no input"):
        chat.ask("Hi", input="Ho")


@given(st.lists(st.text(st.sampled_from(" \n\tab"), max_size=4)))
def test_trimmed_is_strip(texts):
    trimmed = Trimmed()
    assert "".join(map(trimmed.put, texts)) == "".join(texts).strip()
