# Makes and checks objects of all sizes for ever, in the interpreter's own arenas and in
# numpy's arrays, with the modules loaded that servers have.
import gc, hashlib, mmap, random, ssl, sys, time, uuid
import numpy

random.seed(1)
kept = numpy.arange(4 << 20, dtype=numpy.int64)
kept_sum = int(kept.sum())
text = {i: ("%d " % i) * 20 for i in range(50000)}
digest = hashlib.sha256("".join(text[i] for i in range(50000)).encode()).hexdigest()
slots = {}

def wrong(what):
    print("wrong:", what, flush=True)
    sys.exit(3)

def check(data):
    if hashlib.sha256(data[0]).digest() != data[1]:
        wrong("bytes")

n = 0
while True:
    for i in range(400):
        if i in slots:
            check(slots[i])
        if random.random() < 0.7:
            b = random.randbytes(random.choice((50, 500, 5000, 500000)))
            slots[i] = (b, hashlib.sha256(b).digest())
    zeroes = numpy.zeros(random.randrange(1, 1 << 19), dtype=numpy.int64)
    if zeroes.any():
        wrong("numpy.zeros")
    grown = bytearray()
    for i in range(64):
        grown += bytes([i]) * 50000
    if any(grown[i * 50000 + 49999] != i for i in range(64)):
        wrong("bytearray")
    if int(kept.sum()) != kept_sum:
        wrong("array")
    if hashlib.sha256("".join(text[i] for i in range(50000)).encode()).hexdigest() != digest:
        wrong("dictionary")
    slots[uuid.uuid1()] = slots[uuid.uuid4()] = (b"", hashlib.sha256(b"").digest())
    gc.collect()
    print("ok", n, flush=True)
    n += 1
    time.sleep(0.05)
