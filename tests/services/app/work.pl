# Modules of the standard library, plain and compiled, a socket and a child process.
use strict;
use warnings;
use Digest::SHA qw(sha256_hex);
use File::Temp qw(tempdir);
use IO::Socket::INET;
use JSON::PP;
use POSIX ();
use Socket;

my $server = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die "listen: $@";
my $child = fork() // die "fork: $!";
if ($child == 0) {
    my $caller = $server->accept();
    open my $file, '<', '/app/secret.txt' or die "secret: $!";
    print $caller scalar <$file>;
    POSIX::_exit(0);
}
my $client = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $server->sockport()) or die "connect: $@";
my $secret = <$client>;
chomp $secret;
waitpid $child, 0;
die "no folder" unless -d tempdir(CLEANUP => 1);
print encode_json({secret => $secret, status => $?, sha => substr(sha256_hex('x'), 0, 4)}), "\n";
