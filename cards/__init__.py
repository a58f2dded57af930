"""Model cards: one set of facts, two written forms (MindSpore Hub, Hugging Face), two languages."""

from xcit_hub import deprecated

deprecated.install()
