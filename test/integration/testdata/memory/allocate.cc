// Makes and checks C++ containers for ever, in several threads, as allocate.c does with
// plain memory.
#include <cstdio>
#include <cstdlib>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

static std::mutex lock;

static void wrong(const char *what) {
	std::printf("wrong: %s\n", what);
	std::fflush(stdout);
	std::_Exit(3);
}

static std::string text(unsigned n) { return std::to_string(n) + std::string(n % 3000, char('a' + n % 26)); }

static void work(unsigned seed) {
	std::map<unsigned, std::string> words;
	auto kept = std::make_unique<std::vector<unsigned>>(1 << 20);
	for (unsigned i = 0; i < kept->size(); i++)
		(*kept)[i] = i * seed;
	for (unsigned r = seed, round = 0;; round++) {
		for (int i = 0; i < 2000; i++) {
			r = r * 1664525 + 1013904223;
			unsigned n = (r >> 8) % 20000;
			auto it = words.find(n);
			if (it == words.end())
				words[n] = text(n);
			else if (it->second != text(n))
				wrong("string");
			else
				words.erase(it);
		}
		std::vector<unsigned> grown;
		for (unsigned i = 0; i < 300000; i++)
			grown.push_back(i ^ seed);
		for (unsigned i = 0; i < grown.size(); i++)
			if (grown[i] != (i ^ seed))
				wrong("vector");
		std::vector<unsigned> zeroes(200000 + r % 100000);
		for (unsigned v : zeroes)
			if (v)
				wrong("new vector");
		for (unsigned i = 0; i < kept->size(); i++)
			if ((*kept)[i] != i * seed)
				wrong("what is kept");
		{
			std::lock_guard<std::mutex> hold(lock);
			std::printf("ok %u\n", round);
			std::fflush(stdout);
		}
		std::this_thread::sleep_for(std::chrono::milliseconds(30));
	}
}

int main() {
	std::thread(work, 3).detach();
	work(5);
}
