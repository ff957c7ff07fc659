"""A corpus of generated documents: the same seed gives the same text."""

import numpy as np

ONSETS = ["b", "br", "d", "dr", "f", "g", "gl", "k", "kr", "l", "m", "n", "p", "pr", "r", "s", "st", "t", "tr", "v"]
VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "ou"]
CODAS = ["", "l", "n", "r", "s", "t"]


class Corpus:
    """Documents with a title, a text and links to other documents."""

    def __init__(self, documents: int, words: int, seed: int):
        self.random = np.random.Generator(np.random.PCG64(seed))
        self.vocabulary = self._vocabulary(words)
        # Word frequencies fall with rank, as in natural text (Zipf's law).
        weights = 1.0 / np.arange(1, words + 1) ** 0.95
        self.cumulative = np.cumsum(weights / weights.sum())
        self.titles, self.texts, self.links = [], [], []
        for number in range(documents):
            text = self._words(int(self.random.integers(60, 150)))
            self.titles.append(" ".join(text[:4]).title())
            self.texts.append(" ".join(text) + ".")
            # Documents cite older ones, the oldest most.
            cited = (self.random.random(4) ** 2 * number).astype(int) if number else []
            self.links.append([int(c) for c in cited])

    def _vocabulary(self, size: int) -> list[str]:
        words = set()
        while len(words) < size:
            parts = []
            for _ in range(int(self.random.integers(2, 5))):
                parts += [self._pick(ONSETS), self._pick(VOWELS), self._pick(CODAS)]
            words.add("".join(parts))
        return sorted(words, key=lambda w: (len(w), w))

    def _pick(self, choices: list[str]) -> str:
        return choices[int(self.random.integers(len(choices)))]

    def _words(self, count: int) -> list[str]:
        ranks = np.searchsorted(self.cumulative, self.random.random(count))
        return [self.vocabulary[r] for r in ranks]
