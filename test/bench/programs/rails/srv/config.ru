# A Rails application in one file: loads the whole framework but the database, and serves a page.
ENV["RAILS_ENV"] = "production"
ENV["SECRET_KEY_BASE"] = "no secret: it signs nothing that leaves the benchmark"

require "rails"
require "action_controller/railtie"
require "action_view/railtie"
require "active_model/railtie"
require "active_job/railtie"
require "action_mailer/railtie"

class App < Rails::Application
  config.eager_load = true
  config.consider_all_requests_local = true
  config.hosts.clear
  config.logger = Logger.new(nil)
  routes.append { root to: "pages#show" }
end

class PagesController < ActionController::Base
  WORDS = Array.new(200_000) { |i| "w#{(i * 7919).to_s(36)}" }.freeze

  def show
    render inline: "<ul><% words.each do |w| %><li><%= w %></li><% end %></ul>\n", locals: { words: WORDS.first(50) }
  end
end

App.initialize!
run App
