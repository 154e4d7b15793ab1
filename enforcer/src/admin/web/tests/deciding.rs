//! What people see, and what becomes of what they say.

use super::*;

fn decision(csrf: &str, more: &str) -> String {
    format!("csrf={csrf}&seen={SEEN}&{more}")
}

#[tokio::test]
async fn whoever_is_not_logged_in_is_led_there_and_back() {
    let site = Site::new(vec![approval("apr-1")]);
    let led = site.get("/approvals/apr-1", "").await;
    assert_eq!((led.status, led.to()), (StatusCode::SEE_OTHER, "/login?to=%2Fapprovals%2Fapr-1"));
    let page = site.get(led.to(), "").await;
    page.says("href=\"/login/start?to=%2Fapprovals%2Fapr-1\"");
    let (state, cookies) = site.begin("/approvals/apr-1", "").await;
    let back =
        site.get(&format!("/callback?code=ann:ops&state={state}&iss=https://idp.test"), &cookies).await;
    assert_eq!(back.to(), "/approvals/apr-1");
    let cookie = back.headers.get(SET_COOKIE).unwrap().to_str().unwrap();
    assert!(cookie.starts_with("__Host-enforcer="), "{cookie}");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600; Secure"), "{cookie}");
    let shown = site.get("/approvals/apr-1", &back.cookies()).await;
    for part in [
        "ann (approver)",
        "mona",
        "octo/app",
        "href=\"https://github.com/octo/app/actions/runs/42\"",
        "the very bytes",
        "creates a release",
        "held/two",
        "two people",
        "2 of ops; not who started the job",
        "0 of 2 agree",
        "these exact bytes",
        "abcdef",
        "2023-11-14 22:13:20 UTC",
        "2096-10-02 07:06:40 UTC",
    ] {
        shown.says(part);
    }
}

#[tokio::test]
async fn a_vote_carries_the_token_of_its_decider_and_what_they_saw() {
    let site = Site::new(vec![approval("apr-1")]);
    let ann = site.login("ann:ops").await;
    let csrf = site.get("/approvals/apr-1", &ann).await.csrf();
    let said = site.post("/approvals/apr-1", &ann, &decision(&csrf, "said=yes&reason=as+announced")).await;
    assert_eq!(said.status, StatusCode::OK);
    said.says("your yes counts: 1 of 2");
    for (more, want) in [
        ("said=no&scope=once", json!("no")),
        ("said=yes&scope=session", json!("session")),
        ("said=yes&scope=job&minutes=30", json!({"job": {"minutes": 30}})),
    ] {
        site.post("/approvals/apr-1", &ann, &decision(&csrf, more)).await;
        assert_eq!(site.votes().last().unwrap()["said"], want);
    }
    let first = &site.votes()[0];
    let want = json!({"what": "decide", "approval": "apr-1", "seen": SEEN, "said": "once", "reason": "as announced",
                      "token": "token-of-ann"});
    assert_eq!(*first, want);
    for wrong in
        ["said=maybe", "said=", "said=yes&scope=all", "said=yes&scope=job&minutes=x", "said=yes&scope=job"]
    {
        let said = site.post("/approvals/apr-1", &ann, &decision(&csrf, wrong)).await;
        assert_eq!(said.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    assert_eq!(site.votes().len(), 4);
}

#[tokio::test]
async fn who_may_only_look_has_no_form_and_is_refused_without_one() {
    let site = Site::new(vec![approval("apr-1")]);
    let vic = site.login("vic:all").await;
    let shown = site.get("/approvals/apr-1", &vic).await;
    shown.says("your role is viewer");
    assert!(!shown.text.contains("name=\"said\""));
    let said = site.post("/approvals/apr-1", &vic, &decision(&shown.csrf(), "said=yes")).await;
    assert_eq!(said.status, StatusCode::FORBIDDEN);
    assert!(site.votes().is_empty());
}

#[tokio::test]
async fn a_login_decides_no_longer_than_its_token_counts() {
    let site = Site::new(vec![approval("apr-1")]);
    let late = site.login("late:ops").await;
    let csrf = site.get("/approvals/apr-1", &late).await.csrf();
    let said = site.post("/approvals/apr-1", &late, &decision(&csrf, "said=yes")).await;
    assert_eq!(said.status, StatusCode::UNAUTHORIZED);
    said.says("href=\"/login/start?to=%2Fapprovals%2Fapr-1\"");
    assert!(site.votes().is_empty());
}

#[tokio::test]
async fn what_the_proxy_refuses_is_told_and_a_page_that_stayed_open_says_so() {
    let site = Site::new(vec![approval("apr-1")]);
    let ann = site.login("ann:ops").await;
    let csrf = site.get("/approvals/apr-1", &ann).await.csrf();
    let again = |seen: &'static str| format!("/approvals/apr-1/state?seen={seen}");
    assert!(!site.get(&again(SEEN), &ann).await.text.contains("role=\"alert\""));
    site.get(&again("0ther"), &ann).await.says("Another request has taken the place");
    {
        let one = &mut site.loader.0.lock().unwrap().approvals[0];
        (one["state"], one["standing"]) = (json!("expired"), json!("expired"));
    }
    let over = site.get(&again(SEEN), &ann).await;
    over.says("Nothing is left to decide");
    over.says("class=\"meta over\"");
    assert!(!site.get("/approvals/apr-1", &ann).await.text.contains("name=\"said\""));
    site.loader.0.lock().unwrap().refuses = Some("it is decided already\u{1b}".to_owned());
    let said = site.post("/approvals/apr-1", &ann, &decision(&csrf, "said=yes")).await;
    assert_eq!(said.status, StatusCode::CONFLICT);
    said.says("Nothing was decided: it is decided already\\u{1b}.");
    // What stands there stays while nobody answers.
    assert_eq!(site.get(&again(SEEN), &ann).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_list_is_whole_however_long_and_asked_for_once_for_all_who_look() {
    let site = Site::new((1..=256).map(|number| approval(&format!("apr-{number}"))).collect());
    let ann = site.login("ann:ops").await;
    let listed = site.get("/approvals", &ann).await;
    assert_eq!(listed.text.matches("<li class=\"card waits\">").count(), 256);
    let asked = site.loader.0.lock().unwrap().asked;
    assert_eq!(asked, 26);
    for _ in 0..20 {
        assert_eq!(site.get("/approvals/list", &ann).await.text.matches("<li class=").count(), 256);
    }
    // The clock of a slow machine may have let one go by.
    assert!(site.loader.0.lock().unwrap().asked <= asked + 26);
    site.loader.0.lock().unwrap().refuses = Some("busy".to_owned());
    site.get("/approvals?all=1", &ann).await.says("The list cannot be shown: busy");
}

#[tokio::test]
async fn logging_out_ends_the_login_everywhere_it_is_known() {
    let site = Site::new(Vec::new());
    let ann = site.login("ann:ops").await;
    let page = site.get("/approvals", &ann).await;
    page.says("Nothing waits");
    let out = site.post("/logout", &ann, &format!("csrf={}", page.csrf())).await;
    assert_eq!(out.to(), "/login");
    assert!(out.headers.get(SET_COOKIE).unwrap().to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(site.get("/approvals", &ann).await.status, StatusCode::SEE_OTHER);
    // What a page asks by itself makes the browser load it again.
    let asked = site.get("/approvals/list", &ann).await;
    assert_eq!((asked.status, asked.text.as_str()), (StatusCode::NO_CONTENT, ""));
    assert_eq!(asked.headers.get("hx-refresh").unwrap(), "true");
}
