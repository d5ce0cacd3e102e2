use strict; use warnings; $| = 1;
my ($sum, @pids) = 0;
for my $i (1 .. 8) { my $pid = fork // die; exit $i if !$pid; push @pids, $pid }
for (@pids) { waitpid $_, 0; $sum += $? >> 8 }
print "$sum\n", `echo back; exit 3`, $? >> 8, "\n";
print system("true"), system("sh", "-c", "exit 2") >> 8, "\n";
open(my $from, "-|", "seq 3") or die; print while <$from>; close $from;
if (!open(my $to, "|-") // die) { print uc while <STDIN>; exit 0 } else { print $to "to a child\n"; close $to }
pipe(my $r, my $w); if (!fork) { close $r; print $w "through a pipe\n"; exit } close $w; print <$r>; wait;
my $ended = 0; $SIG{CHLD} = sub { $ended++ };
if (!fork) { exit 1 } sleep 1 until $ended; print "told\n";
