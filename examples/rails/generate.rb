# Writes a fat Rails application to a directory: what makes a grown one slow to boot is the amount of
# code that is read and of configuration that is parsed, so that is what there is, the same each time.
#
#   ruby generate.rb DIRECTORY
require "fileutils"
require "yaml"

GEMS = 250   # each with FILES files, of CLASSES classes with METHODS methods
FILES = 6
CLASSES = 3
METHODS = 8
MODELS = 300 # of the application itself, loaded by Zeitwerk
CONFIGS = 120 # YAML files

ROOT = ARGV.fetch(0)

def write(path, content)
  path = File.join(ROOT, path)
  FileUtils.mkdir_p(File.dirname(path))
  File.write(path, content)
end

def method_source(number)
  <<~RUBY.gsub(/^/, "      ")
    def step_#{number}(input = {}, *rest, scale: #{number})
      return rest.first if input.nil? || scale.zero?
      total = input.fetch(:total, 0) + scale * #{number % 7 + 1}
      input.merge(total: total, label: "step #{number} of \#{self.class.name}", parts: [scale, total, *rest])
    rescue KeyError, TypeError => error
      { failed: :step_#{number}, why: error.message }
    end
  RUBY
end

def class_source(name)
  "    class #{name}\n      LIMITS = { low: 1, high: 100, names: %w[alpha beta gamma] }.freeze\n      attr_accessor :owner, :state\n\n" +
    (1..METHODS).map { |n| method_source(n) }.join("\n") + "    end\n"
end

(1..GEMS).each do |gem|
  name = format("Fat%03d", gem)
  parts = (1..FILES).map { |file| "part#{file}" }
  write "vendor/#{name.downcase}/lib/#{name.downcase}.rb", parts.map { |part| "require \"#{name.downcase}/#{part}\"\n" }.join
  parts.each do |part|
    classes = (1..CLASSES).map { |n| class_source("Thing#{n}") }.join("\n")
    write "vendor/#{name.downcase}/lib/#{name.downcase}/#{part}.rb", "module #{name}\n  module #{part.capitalize}\n#{classes}  end\nend\n"
  end
end

(1..MODELS).each do |n|
  write format("app/models/item%03d.rb", n), <<~RUBY
    class Item#{format("%03d", n)}
      include ActiveModel::Model
      include ActiveModel::Attributes
      attribute :name, :string
      attribute :amount, :integer, default: #{n}
      validates :name, presence: true, length: { maximum: #{n + 20} }
      validates :amount, numericality: { greater_than: 0 }
    end
  RUBY
end

(1..CONFIGS).each do |n|
  settings = (1..60).to_h { |k| ["service_#{k}", { "url" => "https://service-#{k}.example/v#{n}", "timeout" => k, "retries" => [1, 2, k], "tags" => { "team" => "t#{n % 9}", "tier" => k % 3 } }] }
  write format("config/settings/%03d.yml", n), settings.to_yaml
end

write "config/database.yml", { "production" => { "adapter" => "sqlite3", "database" => "/tmp/fat.sqlite3", "pool" => 5 } }.to_yaml

write "config.ru", <<~RUBY
  BEGUN = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  require "logger" # before Active Support, which needs it
  require "rails"
  require "action_controller/railtie"
  require "active_record/railtie"
  require "yaml"
  Dir["\#{__dir__}/vendor/*"].sort.each do |gem|
    $LOAD_PATH.unshift "\#{gem}/lib"
    require File.basename(gem)
  end

  class Fat < Rails::Application
    config.root = __dir__
    config.load_defaults Rails::VERSION::STRING.to_f
    config.eager_load = true
    config.consider_all_requests_local = false
    config.secret_key_base = "an example's"
    config.logger = Logger.new($stdout)
    config.log_level = :warn
    config.hosts.clear
    config.x.settings = Dir["\#{__dir__}/config/settings/*.yml"].sort.map { |file| YAML.load_file(file) }
    routes.append do
      root to: "fat#index"
      get "stats", to: "fat#stats"
    end
  end

  # What a clone must do: take up anew what belonged to the captured program. SQLite, for one, has
  # noted the inode of its file, which is another in the clone.
  module Life
    FILE = "/run/snap/generation"
    LOCK = Mutex.new
    @current = File.read(FILE)

    def self.renew
      LOCK.synchronize do
        next if File.read(FILE) == @current
        ActiveRecord::Base.clear_all_connections!
        @current = File.read(FILE)
      end
    end
  end

  class FatController < ActionController::API
    before_action { Life.renew }

    def index
      ActiveRecord::Base.connection.execute("INSERT INTO visits (host) VALUES ('\#{Socket.gethostname}')")
      visits = ActiveRecord::Base.connection.select_values("SELECT host FROM visits ORDER BY id")
      render plain: "visits: \#{visits.join(' ')}\\n"
    end

    def stats
      classes = ObjectSpace.each_object(Class).count
      render plain: "booted in \#{BOOTED.round(2)} s, \#{classes} classes, \#{Rails.configuration.x.settings.sum(&:size)} services configured\\n"
    end
  end

  Fat.initialize!
  ActiveRecord::Base.connection_pool.with_connection do |connection|
    connection.execute("CREATE TABLE IF NOT EXISTS visits (id INTEGER PRIMARY KEY, host TEXT)")
  end
  BOOTED = Process.clock_gettime(Process::CLOCK_MONOTONIC) - BEGUN
  run Fat
RUBY
