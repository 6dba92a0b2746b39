"""Chat with a model: messages to ids by a template, and a session that keeps the history."""

from model.chat.conversation import Budget, Conversation, encode_chat

__all__ = ["Budget", "Conversation", "encode_chat"]
