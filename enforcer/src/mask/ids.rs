//! Check digits of ids that states give to people.

fn digits(value: &[u8]) -> Vec<u32> {
    value.iter().filter(|b| b.is_ascii_digit()).map(|b| u32::from(b - b'0')).collect()
}

fn weighed(digits: &[u32], weights: impl IntoIterator<Item = u32>) -> u32 {
    digits.iter().zip(weights).map(|(digit, weight)| digit * weight).sum()
}

/// ISO/IEC 7064, MOD 11,10: Germany's tax id, in which one digit stands two or three times.
pub(super) fn iso7064(value: &[u8]) -> bool {
    let all = digits(value);
    let [body @ .., last] = &all[..] else { return false };
    let product = body.iter().fold(10, |product, digit| {
        let sum = (digit + product) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    let mut counts = [0_u32; 10];
    for digit in body {
        counts[*digit as usize] += 1;
    }
    let repeated = counts.iter().filter(|c| **c > 1).count();
    (11 - product) % 10 == *last && repeated == 1 && counts.iter().all(|c| *c <= 3)
}

/// France: 97 less the rest of the number by 97.
pub(super) fn nir(value: &[u8]) -> bool {
    let all = digits(value);
    let number = |part: &[u32]| part.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(*digit));
    all.len() == 15 && 97 - number(&all[..13]) % 97 == number(&all[13..])
}

/// Spain: a letter by the rest of the number by 23.
pub(super) fn dni(value: &[u8]) -> bool {
    let number = digits(value).iter().fold(0, |sum, digit| sum * 10 + digit);
    value.last() == b"TRWAGMYFPDXBNJZSQVHLCKE".get((number % 23) as usize)
}

/// The Netherlands: the test of eleven.
pub(super) fn bsn(value: &[u8]) -> bool {
    let all = digits(value);
    let [body @ .., last] = &all[..] else { return false };
    let sum = weighed(body, (2..=9).rev());
    sum % 11 == *last && sum > 0
}

/// Poland: weights 1, 3, 7, 9, and a month that exists.
pub(super) fn pesel(value: &[u8]) -> bool {
    let all = digits(value);
    let month = (all[2] * 10 + all[3]) % 20;
    let sum = weighed(&all[..10], [1, 3, 7, 9].into_iter().cycle());
    (1..=12).contains(&month) && (1..=31).contains(&(all[4] * 10 + all[5])) && (10 - sum % 10) % 10 == all[10]
}

/// Brazil: two check digits, not all digits alike.
pub(super) fn cpf(value: &[u8]) -> bool {
    let all = digits(value);
    let check = |length: u32| {
        let rest = weighed(&all[..length as usize], (2..=length + 1).rev()) * 10 % 11;
        rest % 10 == all[length as usize]
    };
    all.len() == 11 && all.iter().any(|d| *d != all[0]) && check(9) && check(10)
}

/// Italy: the values of odd and even places, by 26.
pub(super) fn codice_fiscale(value: &[u8]) -> bool {
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    let place = |b: u8| u32::from(if b.is_ascii_digit() { b - b'0' } else { b - b'A' });
    let [body @ .., last] = value else { return false };
    let sum: u32 = body
        .iter()
        .enumerate()
        .map(|(at, b)| if at % 2 == 0 { ODD[place(*b) as usize] } else { place(*b) })
        .sum();
    sum % 26 == place(*last)
}
