"""A search index held in memory: postings, link ranks and a table of documents."""

import hashlib
import math
import re
from array import array
from collections import Counter

import networkx
import numpy as np
import pandas
from sympy import Symbol
from sympy.logic.boolalg import And, Not, Or, to_dnf
from sympy.parsing.sympy_parser import parse_expr

TOKEN = re.compile(r"[a-z]+")

# From how many documents the shortest ways to all others are followed.
BETWEENNESS_SAMPLES = 50


class Index:
    """Answers boolean queries, best documents first (BM25 times link rank)."""

    def __init__(self, corpus):
        self.texts = corpus.texts
        # For each word the places where it stands: document, position, document, position, ...
        self.postings: dict[str, array] = {}
        lengths = [self._add(number, text) for number, text in enumerate(corpus.texts)]
        ranks = self._rank(corpus.links)
        self.table = pandas.DataFrame({"title": corpus.titles, "length": lengths, "rank": ranks})
        self.table["decile"] = pandas.qcut(self.table["rank"], 10, labels=False, duplicates="drop")
        # Plain lists: a query looks single documents up.
        self.lengths, self.ranks = lengths, ranks.tolist()
        self.mean_length = sum(lengths) / len(lengths)

    def _add(self, number: int, text: str) -> int:
        """Notes where each word of the document stands, and returns how many there are."""
        position = -1
        for position, match in enumerate(TOKEN.finditer(text)):
            places = self.postings.get(match.group())
            if places is None:
                places = self.postings[match.group()] = array("I")
            places.append(number)
            places.append(position)
        return position + 1

    def _frequencies(self, word: str) -> Counter:
        """How often the word stands in each document."""
        return Counter(self.postings.get(word, ())[::2])

    def _rank(self, links) -> np.ndarray:
        """PageRank by power iteration over the graph of citations, raised for documents that connect others."""
        self.graph = networkx.DiGraph()
        self.graph.add_nodes_from(range(len(links)))
        self.graph.add_edges_from((source, target) for source, targets in enumerate(links) for target in targets)
        edges = np.array(self.graph.edges)
        out = np.maximum(np.bincount(edges[:, 0], minlength=len(links)), 1)
        ranks = np.full(len(links), 1.0)
        for _ in range(30):
            flow = np.bincount(edges[:, 1], weights=(ranks / out)[edges[:, 0]], minlength=len(links))
            ranks = 0.15 + 0.85 * flow
        between = networkx.betweenness_centrality(self.graph, k=BETWEENNESS_SAMPLES, seed=1)
        return ranks * (1 + np.fromiter(between.values(), float, len(links)))

    def query(self, expression: str):
        """Parses a query such as "a & (b | c)" into alternatives of words to have and not to have."""
        names = set(TOKEN.findall(expression))
        parsed = to_dnf(parse_expr(expression, local_dict={n: Symbol(n) for n in names}), simplify=True)
        alternatives = []
        for term in parsed.args if isinstance(parsed, Or) else [parsed]:
            literals = term.args if isinstance(term, And) else [term]
            wanted = sorted(str(x) for x in literals if not isinstance(x, Not))
            refused = sorted(str(x.args[0]) for x in literals if isinstance(x, Not))
            alternatives.append((wanted, refused))
        return sorted(alternatives)

    def search(self, alternatives, limit: int = 5):
        """Returns how many documents match, and the best of them."""
        scores: dict[int, float] = {}
        for wanted, refused in alternatives:
            lists = sorted((self._frequencies(word) for word in wanted), key=len)
            found = set(lists[0]).intersection(*lists[1:])
            for word in refused:
                found.difference_update(self._frequencies(word))
            for number in found:
                scores[number] = max(scores.get(number, 0.0), self._score(number, lists))
        best = sorted(scores, key=lambda n: (-scores[n], n))[:limit]
        return len(scores), [{"document": n, "title": self.table.at[n, "title"], "score": round(scores[n], 6)} for n in best]

    def _score(self, number: int, lists) -> float:
        norm = 1.2 * (0.25 + 0.75 * self.lengths[number] / self.mean_length)
        score = 0.0
        for documents in lists:
            frequency = documents[number]
            score += math.log(1 + len(self.texts) / len(documents)) * frequency * 2.2 / (frequency + norm)
        return score * self.ranks[number]

    def checksum(self) -> str:
        """A digest over all postings and ranks."""
        digest = hashlib.sha256()
        for word in sorted(self.postings):
            digest.update(word.encode())
            digest.update(self.postings[word].tobytes())
        digest.update(np.round(self.ranks, 6).tobytes())
        return digest.hexdigest()
