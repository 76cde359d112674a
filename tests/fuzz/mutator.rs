//! Inputs from a corpus by small and large damage.

/// SplitMix64, by Steele, Lea and Flood: small, quick, and good from any seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `end`, which is at least 1.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// A range within `0..length`, mostly a short one.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let most = (length - start).min(if self.below(4) == 0 { length } else { 16 });
        start..start + self.below(most + 1)
    }
}

/// Largest input: what grows beyond is cut.
const INPUT_MAX: usize = 256 << 10;
/// Bytes that mean something to one of the readers.
const SPECIAL: &[u8] = b"\0\n\r\t \"'#$%&,-./:;<=>?@[]\\{}|~\x7f\x80\xc3\xff09afAF";
/// Numbers at the edges of types and limits.
const NUMBERS: [&str; 18] = [
    "0",
    "-1",
    "1",
    "7f",
    "127",
    "128",
    "255",
    "256",
    "1e9",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "18446744073709551616",
    "NaN",
    "0.1",
];

/// One input: most often one of the corpus with some damage, now and then only noise.
pub(crate) fn mutated(corpus: &[Vec<u8>], words: &[&str], random: &mut Random) -> Vec<u8> {
    let mut input = match random.below(50) {
        0 => (0..random.below(300)).map(|_| random.byte()).collect(),
        1 => (0..random.below(40)).flat_map(|_| word(words, random)).collect(),
        _ => corpus[random.below(corpus.len())].clone(),
    };
    for _ in 0..=random.below(6) {
        damage(&mut input, corpus, words, random);
        input.truncate(INPUT_MAX);
    }
    input
}

fn word(words: &[&str], random: &mut Random) -> Vec<u8> {
    words[random.below(words.len())].as_bytes().to_vec()
}

fn damage(input: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&str], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let range = random.range(input.len());
    match random.below(12) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.byte(),
        2 if at < input.len() => input[at] = SPECIAL[random.below(SPECIAL.len())],
        3 => input.insert(at, SPECIAL[random.below(SPECIAL.len())]),
        4 => input.truncate(at),
        5 => drop(input.drain(range)),
        // The same again, once or very often.
        6 => {
            let times = [1, 1, 2, 300][random.below(4)];
            let copies = input[range].repeat(times);
            input.splice(at..at, copies.into_iter().take(INPUT_MAX));
        }
        7 | 8 => drop(input.splice(range, word(words, random))),
        9 => {
            let number = NUMBERS[random.below(NUMBERS.len())].bytes();
            // In the place of a number, where there is one behind.
            let digits = |b: &u8| b.is_ascii_digit();
            let start = input[at..].iter().position(digits).map_or(at, |digit| at + digit);
            let length = input[start..].iter().take_while(|b| digits(b)).count();
            input.splice(start..start + length, number);
        }
        // Something from another input.
        10 => {
            let other = &corpus[random.below(corpus.len())];
            let part = other[random.range(other.len())].to_vec();
            input.splice(range, part);
        }
        _ => {
            let other = &corpus[random.below(corpus.len())];
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
    }
}

#[test]
fn inputs_follow_from_the_seed() {
    let corpus = [b"one".to_vec(), b"two 2".to_vec()];
    let input = |seed| mutated(&corpus, &["word"], &mut Random::new(seed));
    let inputs: Vec<_> = (0..1000).map(input).collect();
    assert!((0..1000).zip(&inputs).all(|(seed, known)| input(seed) == *known));
    let different: std::collections::BTreeSet<_> = inputs.iter().collect();
    assert!(different.len() > 700, "{}", different.len());
}
