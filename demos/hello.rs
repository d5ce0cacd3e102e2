use std::thread;

fn primes(range: std::ops::Range<u32>) -> usize {
    range.filter(|&n| n > 1 && (2..).take_while(|d| d * d <= n).all(|d| n % d != 0)).count()
}

fn main() {
    let workers: Vec<_> = (0..4).map(|n| thread::spawn(move || primes(n * 25_000..(n + 1) * 25_000))).collect();
    let count: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    println!("primes below 100000: {count}");
}
