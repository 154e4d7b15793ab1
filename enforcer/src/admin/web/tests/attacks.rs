//! Who is not who they should be, and what is not what it says.

use super::*;

#[tokio::test]
async fn every_answer_has_the_headers_that_keep_others_out() {
    let site = Site::new(vec![approval("apr-1")]);
    let ann = site.login("ann:ops").await;
    for path in ["/approvals", "/login", "/assets/style.css", "/nothing", "/approvals/apr-1", "/callback"] {
        let answer = site.get(path, &ann).await;
        let field = |name: &str| answer.headers.get(name).map_or("", |it| it.to_str().unwrap());
        let policy = field("content-security-policy");
        for part in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"]
        {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(field("x-content-type-options"), "nosniff");
        assert_eq!(field("referrer-policy"), "same-origin");
        assert_eq!(field("cache-control") == "no-store", !path.starts_with("/assets"), "{path}");
        // Neither script nor style stands in a page.
        for part in ["<style", " style=", " onclick", "javascript:"] {
            assert!(!answer.text.contains(part) || path.starts_with("/assets"), "{path}: {part}");
        }
        assert_eq!(answer.text.matches("<script").count(), answer.text.matches("<script src=").count());
    }
}

#[tokio::test]
async fn what_a_job_wrote_is_text() {
    const XSS: &str = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'{{7*7}}<U+202E>";
    let mut one = approval("apr-1");
    for name in ["actor", "repository", "host", "statement", "rule"] {
        one[name] = XSS.into();
    }
    for name in ["actor", "repository", "host", "message", "run", "effect", "statement"] {
        one["view"][name] = XSS.into();
    }
    one["votes"] = json!([{"at": 1, "by": {"subject": {"issuer": XSS, "subject": XSS}}, "scope": "once", "reason": XSS}]);
    one["terms"]["needs"][0]["groups"] = json!([XSS]);
    (one["seen"], one["session"], one["exact"]) = (XSS.into(), XSS.into(), XSS.into());
    let site = Site::new(vec![one]);
    let ann = site.login("ann:ops").await;
    for path in ["/approvals", "/approvals/list", "/approvals/apr-1", "/approvals/apr-1/state?seen=x"] {
        let page = site.get(path, &ann).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(!page.text.contains("<script>") && !page.text.contains("<img"), "{path}: {}", page.text);
        assert!(page.text.contains("alert(1)"), "{path}");
        // Nothing of it ends an attribute.
        assert!(!page.text.contains("\"\">") && !page.text.contains("=\"&quot;\">"), "{path}: {}", page.text);
    }
    site.get("/approvals/apr-1", &ann).await.says("<mark>&#60;U+202E&#62;</mark>");
}

#[tokio::test]
async fn a_form_counts_from_our_page_and_of_ones_own_login_alone() {
    let site = Site::new(vec![approval("apr-1")]);
    let (ann, bob) = (site.login("ann:ops").await, site.login("bob:ops").await);
    let csrf = site.get("/approvals/apr-1", &ann).await.csrf();
    let of_bob = site.get("/approvals/apr-1", &bob).await.csrf();
    let form = |csrf: &str| format!("csrf={csrf}&seen={SEEN}&said=yes");
    for wrong in ["", "x", &of_bob, &csrf[1..]] {
        let said = site.post("/approvals/apr-1", &ann, &form(wrong)).await;
        assert_eq!(said.status, StatusCode::FORBIDDEN, "{wrong}");
    }
    let out = site.post("/logout", &ann, &format!("csrf={of_bob}")).await;
    assert_eq!(out.status, StatusCode::FORBIDDEN);
    let post = |fields: &[(&'static str, &'static str)]| {
        let mut request = Request::post("/approvals/apr-1")
            .header(HOST, HOSTNAME)
            .header(COOKIE, &ann)
            .header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(Body::from(form(&csrf))).unwrap()
    };
    for wrong in [
        &[][..],
        &[("origin", "null")],
        &[("origin", "https://evil.test")],
        &[("origin", "https://page.test.evil.test")],
        &[("origin", "http://page.test")],
        &[("origin", URL), ("origin", "https://evil.test")],
        &[("origin", URL), ("sec-fetch-site", "cross-site")],
        &[("origin", URL), ("sec-fetch-site", "same-site")],
    ] {
        assert_eq!(site.send(post(wrong)).await.status, StatusCode::FORBIDDEN, "{wrong:?}");
    }
    assert!(site.votes().is_empty());
    let fine = site.send(post(&[("origin", URL), ("sec-fetch-site", "same-origin")])).await;
    assert_eq!((fine.status, site.votes().len()), (StatusCode::OK, 1));
    // Neither by another method nor in another shape.
    let got = site.get(&format!("/approvals/apr-1?csrf={csrf}&seen={SEEN}&said=yes"), &ann).await;
    assert_eq!(got.status, StatusCode::OK);
    let json = Request::post("/approvals/apr-1")
        .header(HOST, HOSTNAME)
        .header(ORIGIN, URL)
        .header(COOKIE, &ann)
        .header("content-type", "text/plain")
        .body(Body::from(form(&csrf)))
        .unwrap();
    assert_eq!(site.send(json).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(site.votes().len(), 1);
}

#[tokio::test]
async fn another_host_is_another_site() {
    let site = Site::new(Vec::new());
    let ann = site.login("ann:ops").await;
    let ask = |hosts: &[&'static str], uri: &'static str| {
        let mut request = Request::get(uri).header(COOKIE, &ann);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(Body::empty()).unwrap()
    };
    for hosts in [
        &[][..],
        &["evil.test"],
        &["page.test:81"],
        &["page.test.evil.test"],
        &["127.0.0.1:15080"],
        &["page.test", "evil.test"],
    ] {
        let answer = site.send(ask(hosts, "/approvals")).await;
        assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST, "{hosts:?}");
        assert!(!answer.text.contains("Approvals"));
    }
    let other = site.send(ask(&["page.test"], "http://evil.test/approvals")).await;
    assert_eq!(other.status, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(site.send(ask(&["PAGE.test"], "/approvals")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_login_belongs_to_the_browser_that_began_it() {
    let site = Site::new(Vec::new());
    let (state, cookies) = site.begin("/", "").await;
    let (other_state, other) = site.begin("/", "").await;
    let back = |state: &str, more: &str| format!("/callback?code=ann:ops&state={state}{more}");
    for (path, cookies) in [
        (back(&state, ""), ""),
        (back(&state, ""), other.as_str()),
        (back(&other_state, ""), &cookies),
        (back("", ""), &cookies),
        ("/callback?code=ann:ops".to_owned(), &cookies),
        (back(&state, "&iss=https://evil.test"), &cookies),
    ] {
        let answer = site.get(&path, cookies).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        assert!(answer.headers.get(SET_COOKIE).is_none());
    }
    for refused in ["error=access_denied&code=ann:ops", "error=x"] {
        let answer = site.get(&format!("/callback?{refused}&state={state}"), &cookies).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert!(!answer.text.contains("access_denied"));
    }
    let unknown = site.get(&format!("/callback?code=nobody&state={state}"), &cookies).await;
    assert_eq!(unknown.status, StatusCode::BAD_GATEWAY);
    let fine = site.get(&back(&state, ""), &cookies).await;
    assert_eq!(fine.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_stranger_of_the_same_issuer_gets_nothing() {
    let site = Site::new(vec![approval("apr-1")]);
    let (state, cookies) = site.begin("/approvals", "").await;
    let back = site.get(&format!("/callback?code=eve:others&state={state}"), &cookies).await;
    assert_eq!(back.status, StatusCode::FORBIDDEN);
    back.says("none of your groups has a role");
    assert!(back.headers.get(SET_COOKIE).is_none() && site.logins() == 0);
    assert_eq!(site.get("/approvals", &cookies).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_number_that_was_there_before_a_login_is_nobodys() {
    let site = Site::new(Vec::new());
    // One that an attacker has chosen, and one that is an attacker's own.
    let of_eve = site.login("eve:all").await;
    for before in ["__Host-enforcer=chosen".to_owned(), of_eve.clone()] {
        let (state, ticket) = site.begin("/", &before).await;
        let back =
            site.get(&format!("/callback?code=ann:ops&state={state}"), &format!("{before}; {ticket}")).await;
        let after = back.cookies();
        assert!(!after.contains(before.split('=').nth(1).unwrap()));
        assert_eq!(site.get("/approvals", &before).await.status, StatusCode::SEE_OTHER);
        site.get("/approvals", &after).await.says("ann (approver)");
    }
    // Without the prefix that the browser demands of a secure site it is another cookie.
    let plain = of_eve.replace("__Host-", "");
    assert_eq!(site.get("/approvals", &plain).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn no_login_leads_elsewhere() {
    let site = Site::new(Vec::new());
    for to in ["//evil.test", "https://evil.test", "/\\evil.test", "/%0d%0aset-cookie:a=b", "\t//evil.test"] {
        let (state, cookies) = site.begin(to, "").await;
        let back = site.get(&format!("/callback?code=ann:ops&state={state}"), &cookies).await;
        let to = back.to();
        assert!(to == "/" || to == "/%0d%0aset-cookie:a=b", "{to}");
        assert!(!site.get(&format!("/login?to={to}"), "").await.text.contains("evil"));
    }
}

#[tokio::test]
async fn an_id_is_an_id() {
    let site = Site::new(vec![approval("apr-1")]);
    let ann = site.login("ann:ops").await;
    let before = site.loader.0.lock().unwrap().asked;
    for id in ["x", "..%2f..%2fetc%2fpasswd", "apr--1", "apr-1%00", "apr-99999999999999999999999", "%2e%2e"] {
        assert_eq!(site.get(&format!("/approvals/{id}"), &ann).await.status, StatusCode::NOT_FOUND, "{id}");
    }
    assert_eq!(site.loader.0.lock().unwrap().asked, before);
}

#[tokio::test]
async fn without_tls_the_cookie_is_one_for_this_host() {
    let site = Site::at("http://localhost:15080", Vec::new());
    let get = |path: String, cookies: String| {
        Request::get(path)
            .header(HOST, "localhost:15080")
            .header(COOKIE, cookies)
            .body(Body::empty())
            .unwrap()
    };
    let begun = site.send(get("/login/start?to=/".to_owned(), String::new())).await;
    let state = begun.to().rsplit_once("state=").unwrap().1;
    let back = site.send(get(format!("/callback?code=ann:ops&state={state}"), begun.cookies())).await;
    let cookie = back.headers.get(SET_COOKIE).unwrap().to_str().unwrap();
    assert!(cookie.starts_with("enforcer=") && !cookie.contains("Secure"), "{cookie}");
    assert_eq!(site.send(get("/approvals".to_owned(), back.cookies())).await.status, StatusCode::OK);
}
