# Computes digits of pi (-v digits=N), one after the other, and appends each to /pi.
#
# All that it needs for the next digit is in its memory: thousands of remainders. This is
# the spigot of Rabinowitz and Wagon. It works the harder, the more digits are wanted.
function emit(digit) {
	if (started && written < digits) {
		printf "%d", digit >>"/pi"
		fflush("/pi")
		written++
	}
	started = 1 # the very first is the nought before the three
}

BEGIN {
	print "begun"
	fflush()
	size = int(10 * digits / 3) + 10
	for (i = 1; i <= size; i++) a[i] = 2
	while (written < digits) {
		q = 0
		for (i = size; i > 0; i--) {
			x = 10 * a[i] + q * i
			a[i] = x % (2 * i - 1)
			q = int(x / (2 * i - 1))
		}
		a[1] = q % 10
		q = int(q / 10)
		if (q == 9) {
			nines++ # not known yet: a carry may come
			continue
		}
		emit(before + (q == 10))
		for (; nines > 0; nines--) emit(q == 10 ? 0 : 9)
		before = q % 10
	}
	print "done"
}
