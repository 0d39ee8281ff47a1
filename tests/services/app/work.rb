# The standard library, compiled extensions, RubyGems, a thread and a socket.
require "digest"
require "json"
require "openssl"
require "socket"

server = TCPServer.new("127.0.0.1", 0)
thread = Thread.new { server.accept.tap { |caller| caller.write(File.read("/app/secret.txt")) }.close }
secret = TCPSocket.new("127.0.0.1", server.addr[1]).read.strip
thread.join
puts JSON.generate({secret: secret, sha: Digest::SHA256.hexdigest("x")[0, 4], home: Gem.path.grep(/nonexistent|root/)})
