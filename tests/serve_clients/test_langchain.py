"""Oracle: openai's client, asked the same by hand. LangChain's chain must send the messages, and hand the answer on."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI, OpenAI
from openai import OpenAI as Client

TALES = [
    "The king of the golden mountain had three sons.",
    "The fisherman caught a fish that could talk.",
    "An old woman lived alone at the edge of the wood.",
]
QUESTION = TALES[1]  # the embedding is a hash: only the same text is near
SYSTEM, USER = "Tell a tale of this:\n{context}", "{question}"


def together(documents: list[Document]) -> str:
    return "\n".join(document.page_content for document in documents)


@pytest.fixture(scope="module")
def model(url: str) -> ChatOpenAI:
    return ChatOpenAI(model="storyteller", base_url=f"{url}/v1", api_key="none", seed=7, max_tokens=24, max_retries=0)


@pytest.fixture(scope="module")
def chain(model: ChatOpenAI) -> Runnable[str, str]:
    """Retrieval, prompt, model, answer."""
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=32))
    store.add_texts(TALES)
    retriever = store.as_retriever(search_kwargs={"k": 1})
    prompt = ChatPromptTemplate.from_messages([("system", SYSTEM), ("user", USER)])
    inputs = {"context": retriever | together, "question": RunnablePassthrough()}
    return inputs | prompt | model | StrOutputParser()


@pytest.fixture(scope="module")
def expected(client: Client) -> str:
    messages = [{"role": "system", "content": SYSTEM.format(context=TALES[1])}, {"role": "user", "content": QUESTION}]
    reply = client.chat.completions.create(model="storyteller", messages=messages, seed=7, max_tokens=24)
    return reply.choices[0].message.content


def test_retrieval_and_answer(chain: Runnable[str, str], expected: str):
    assert expected
    assert chain.invoke(QUESTION) == expected


def test_a_stream(chain: Runnable[str, str], expected: str):
    parts = list(chain.stream(QUESTION))
    assert "".join(parts) == expected and len([part for part in parts if part]) > 2


def test_a_batch(chain: Runnable[str, str], expected: str):
    assert chain.batch([QUESTION, TALES[0], QUESTION])[::2] == [expected, expected]


def test_without_blocking(chain: Runnable[str, str], expected: str):
    assert asyncio.run(chain.ainvoke(QUESTION)) == expected


def test_what_it_reads_of_the_reply(model: ChatOpenAI):
    message = model.bind(logprobs=True, top_logprobs=2).invoke("Tell me of the king.")
    assert message.usage_metadata["output_tokens"] == len(message.response_metadata["logprobs"]["content"])
    assert message.response_metadata["model_name"] == "storyteller"
    assert message.response_metadata["finish_reason"] in ("stop", "length")
    assert message.response_metadata["system_fingerprint"]


def test_a_plain_completion(url: str, client: Client):
    model = OpenAI(model="storyteller", base_url=f"{url}/v1", api_key="none", seed=7, max_tokens=12, max_retries=0)
    own = dict(temperature=0.7, top_p=1)  # LangChain's defaults, which it sends
    reply = client.completions.create(model="storyteller", prompt="The king", seed=7, max_tokens=12, **own)
    assert model.invoke("The king") == reply.choices[0].text
