//! Ids that states give to people, with their check digits; off unless named.

use crate::mask::{byteset::ByteSet, check::Check, rule::Detector};

const fn national(rule: &'static str, entity: &'static str, pattern: &'static str) -> Detector {
    Detector::fixed(rule, entity, "national", pattern).between(ByteSet::ALNUM)
}

/// For ids that begin with a digit.
const fn digits(rule: &'static str, entity: &'static str, pattern: &'static str, check: Check) -> Detector {
    national(rule, entity, pattern).at_runs(ByteSet::DIGIT, ByteSet::ALNUM, None).check(check)
}

/// The table.
pub(super) static NATIONAL: &[Detector] = &[
    national("us-ssn", "US_SSN", "(?i:ssn|social security number|social security)[:#= \"']{1,4}(?<secret>[0-8][0-9]{2}[- ]?[0-9]{2}[- ]?[0-9]{4})")
        .check(Check::Real)
        .yes(&[&["SSN: 219-09", "-9997"]])
        .no(&[&["SSN: 000-00-0000"]]),
    national("uk-nino", "UK_NINO", "(?i:national insurance(?: number| no)?|nino)[:#= \"']{1,4}(?<secret>[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D])")
        .yes(&[&["NINO: AB 12 34", " 56 C"]]),
    digits("de-tax-id", "DE_TAX_ID", "[1-9][0-9]{10}", Check::Iso7064)
        .yes(&[&["ID 8609574", "2719"]])
        .no(&[&["86095742718"]]),
    digits("fr-nir", "FR_NIR", "[12] ?[0-9]{2} ?(?:0[1-9]|1[0-2]) ?[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}", Check::Nir)
        .yes(&[&["NIR 2550814", "16802538"]])
        .no(&[&["255081416802539"]]),
    digits("es-dni", "ES_DNI", "[0-9]{8}-?[A-HJ-NP-TV-Z]", Check::Dni)
        .yes(&[&["DNI 1234", "5678Z"]])
        .no(&[&["12345678A"]]),
    digits("nl-bsn", "NL_BSN", "[0-9]{9}", Check::Bsn)
        .yes(&[&["BSN 1112", "22333"]])
        .no(&[&["111222334"]]),
    digits("pl-pesel", "PL_PESEL", "[0-9]{11}", Check::Pesel)
        .yes(&[&["PESEL 44051", "401359"]])
        .no(&[&["44051401358"]]),
    digits("br-cpf", "BR_CPF", "[0-9]{3}\\.?[0-9]{3}\\.?[0-9]{3}-?[0-9]{2}", Check::Cpf)
        .yes(&[&["CPF 529.982.", "247-25"]])
        .no(&[&["529.982.247-26"]]),
    national("it-codice-fiscale", "IT_CODICE_FISCALE", "[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z]")
        .at_runs(ByteSet::UPPER, ByteSet::ALNUM, None)
        .check(Check::CodiceFiscale)
        .yes(&[&["RSSMRA85", "T10A562S"]])
        .no(&[&["RSSMRA85T10A562T"]]),
];
