# Makes and checks objects of all sizes for ever, also in fibers, and says "ok" after each
# round in which all was right.
require 'digest'

$stdout.sync = true
random = Random.new(1)

def wrong(what)
  puts "wrong: #{what}"
  exit!(3)
end

def deep(n)
  n.zero? ? 0 : 1 + deep(n - 1)
end

kept = Array.new(1 << 18) { |i| i * 3 }
text = (0...50_000).to_h { |i| ["key #{i}", "value #{i}"] }
slots = Array.new(400)
(0..).each do |round|
  slots.each_index do |i|
    wrong('a string') if slots[i] && Digest::SHA256.digest(slots[i][0]) != slots[i][1]
    if random.rand < 0.7
      data = random.bytes([50, 500, 5000, 200_000].sample(random: random))
      slots[i] = [data, Digest::SHA256.digest(data)]
    end
  end
  garbage = Array.new(30_000) { |i| [i, i.to_s] }
  garbage.each_with_index { |g, i| wrong('an array') if g != [i, i.to_s] }
  garbage = nil
  wrong('a fiber') unless Array.new(50) { Fiber.new { Fiber.yield deep(500) } }.all? { |f| f.resume == 500 }
  wrong('a thread') unless Thread.new { deep(2000) }.value == 2000
  kept.each_with_index { |v, i| wrong('the array that is kept') if v != i * 3 }
  (0...50_000).each { |i| wrong('the hash') if text["key #{i}"] != "value #{i}" }
  GC.start
  GC.compact if GC.respond_to?(:compact)
  puts "ok #{round}"
end
